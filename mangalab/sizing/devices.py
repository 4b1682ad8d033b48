"""Accelerators: those of `mangalab.estimate` and two cards for desks."""

from collections.abc import Mapping

from ..estimate import DEVICES as BASE
from ..estimate import GB, Device

# NVIDIA's architecture papers: dense tensor cores, 16-bit factors summed in 32 bits.
DEVICES: Mapping[str, Device] = {
    **BASE,
    "RTX-4090": Device("RTX-4090", 165.2e12, 24 * GB, 1.008e12),
    "RTX-3090": Device("RTX-3090", 71e12, 24 * GB, 0.936e12),
}
