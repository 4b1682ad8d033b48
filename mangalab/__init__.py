"""Support package of the fine-tuning book: training, spectrum analysis, evaluation, run records.

Importing it is instant: torch and the other heavy libraries load on first use.
"""

import os

# Two torch processes with spinning OpenMP threads slow each other down up to 18x (measured), and
# the policy is read once, when the OpenMP runtime starts: it must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# A short spin before sleeping: a training step alone is about a quarter faster than with none
# (measured), and two processes still do not starve each other.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

__version__ = "0.1.0"
