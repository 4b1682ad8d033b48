"""Static figures of heads and marked messages: a page needs no script and no network for them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def head_view(tokens: Sequence[str], heads: Mapping[str, np.ndarray]) -> "Figure":
    """One panel a head (L, L): lines from the asking token, left, to what it looks at (Vig 2019)."""
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, len(heads), figsize=(8.4, 0.23 * len(tokens) + 0.8), squeeze=False)
    for ax, (name, weights) in zip(axes[0], heads.items(), strict=True):
        for i, j in np.argwhere(np.asarray(weights) >= 0.02):  # fainter lines could not be seen
            ax.plot([0, 1], [-i, -j], color="C0", alpha=float(min(1, weights[i][j])), lw=1.6)
        for i, token in enumerate(tokens):
            ax.text(-0.05, -i, token, ha="right", va="center", fontsize=8)
            ax.text(1.05, -i, token, ha="left", va="center", fontsize=8)
        ax.set(xlim=(-0.9, 1.9), title=name)
        ax.axis("off")
    return fig


def marked(rows: Mapping[str, tuple[Sequence[str], np.ndarray]]) -> "Figure":
    """A line of tokens for each row: orange speaks for the class, blue against, darker is more."""
    from matplotlib import pyplot as plt

    fig, ax = plt.subplots(figsize=(8.4, 0.75 * len(rows) + 0.5))
    for r, (name, (tokens, scores)) in enumerate(rows.items()):
        shades = np.asarray(scores) / max(float(np.abs(scores).max()), 1e-12)
        for i, (token, s) in enumerate(zip(tokens, shades, strict=True)):
            color = (*((0.84, 0.37, 0.0) if s > 0 else (0.0, 0.45, 0.70)), 0.75 * abs(float(s)))
            ax.add_patch(plt.Rectangle((i, -r - 0.4), 0.96, 0.8, color=color, lw=0))
            ax.text(i + 0.48, -r, token, ha="center", va="center", fontsize=7, rotation=35)
        ax.text(-0.2, -r, name, ha="right", va="center", fontsize=8)
    ax.set(xlim=(-0.02, max(len(t) for t, _ in rows.values())), ylim=(0.4 - len(rows), 0.6))
    ax.axis("off")
    return fig
