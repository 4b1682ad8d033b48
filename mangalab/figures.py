"""One style for all figures: opaque white, colour-blind safe, readable on a phone."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito (2008): distinguishable with all common colour deficiencies
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MIN_ALT = 30


class FigureError(ValueError):
    """A figure without a usable alternative text."""


def use_style() -> None:
    """Set the book's matplotlib style for this process."""
    import matplotlib.pyplot as plt
    from cycler import cycler

    plt.rcParams.update({
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
        "figure.figsize": (7.2, 3.8),
        "figure.dpi": 100,
        "figure.constrained_layout.use": True,
        "font.size": 11,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "lines.linewidth": 2,
        "lines.markersize": 6,
        "legend.frameon": False,
        "axes.prop_cycle": cycler(color=COLORS),
    })


def check_alt(alt: str, caption: str) -> None:
    """Refuse empty, very short or copied alternative texts: they say what the picture shows."""
    if len(alt.strip()) < MIN_ALT or alt.strip() == caption.strip():
        raise FigureError(
            f"alt text {alt!r}: say in {MIN_ALT} or more characters what the picture shows, in "
            "other words than the caption"
        )


def png(fig: "Figure", dpi: int = 144) -> bytes:
    """The figure as PNG bytes; the figure is closed."""
    import io

    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    # no software or date entry: the same figure gives the same bytes
    fig.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    plt.close(fig)
    return buffer.getvalue()
