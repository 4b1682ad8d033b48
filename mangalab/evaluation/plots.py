"""Figures of classifiers, one function each; all return a matplotlib figure for ``lab.show``."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .calibration import Reliability
from .intervals import Interval
from .latency import Latency

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = "os^Dv"
MIN_IN_BIN = 10  # an accuracy of fewer messages is not drawn


def _axes(panels: int = 1, size: tuple[float, float] | None = None):
    from matplotlib import pyplot as plt

    return plt.subplots(1, panels, figsize=size or ((7.2, 3.8) if panels == 1 else (8.4, 3.6)))


def smooth_losses(losses: Mapping[str, Sequence[float]], window: int = 5) -> "Figure":
    """Running means of the training loss, one line a run."""
    fig, ax = _axes()
    for name, values in losses.items():
        width = min(window, len(values))
        ax.plot(np.convolve(values, np.ones(width) / width, "valid"), label=name)
    ax.set(xlabel="step", ylabel=f"training loss (mean of {window} steps)")
    ax.legend()
    return fig


def dots(rows: Mapping[str, Sequence[float]], xlabel: str) -> "Figure":
    """One row of dots for each entry, a bar at the mean."""
    fig, ax = _axes()
    for row, values in enumerate(rows.values()):
        ax.plot(values, [row] * len(values), "o", alpha=0.6)
        ax.plot(np.mean(values), row, "k|", markersize=18)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set(xlabel=xlabel, ylim=(len(rows) - 0.5, -0.5))
    return fig


def intervals(names: Sequence[str], found: Sequence[Interval], xlabel: str) -> "Figure":
    """Horizontal intervals of shares, one for each name."""
    fig, ax = _axes(size=(7.2, 4.2))
    for row, r in enumerate(found):
        ax.plot([r.low, r.high], [row, row], color="C0")
        ax.plot(r.value, row, "o", color="C0")
    ax.set_yticks(range(len(names)), [f"{n} ({r.n})" for n, r in zip(names, found, strict=True)])
    ax.set(xlabel=xlabel, xlim=(0, 1), ylim=(len(names) - 0.5, -0.5))
    return fig


def bands(x: Sequence[float], series: Mapping[str, Sequence[Interval]], xlabel: str, ylabel: str):
    """Lines with 95 % bands over a logarithmic axis."""
    fig, ax = _axes()
    for (name, found), marker in zip(series.items(), MARKERS, strict=False):
        ax.plot(x, [f.value for f in found], marker + "-", label=name)
        ax.fill_between(x, [f.low for f in found], [f.high for f in found], alpha=0.15)
    ax.set(xscale="log", xlabel=xlabel, ylabel=ylabel)
    ax.set_xticks(x, [f"{v:,}" for v in x])
    ax.minorticks_off()
    ax.legend()
    return fig


def confusion_grid(table: np.ndarray, names: Sequence[str]) -> "Figure":
    """Confusion matrix with counts, shaded by the share of the true class."""
    fig, ax = _axes(size=(6.6, 5.6))
    share = table / table.sum(1, keepdims=True)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for i, j in np.argwhere(table > 0):
        color = "white" if share[i, j] > 0.6 else "black"
        ax.text(j, i, table[i, j], ha="center", va="center", fontsize=9, color=color)
    ax.set_xticks(range(len(names)), names, rotation=45, ha="right")
    ax.set_yticks(range(len(names)), names)
    ax.grid(False)
    ax.set(xlabel="routed to", ylabel="meant")
    return fig


def reliability_diagram(curves: Mapping[str, Reliability]) -> "Figure":
    """Accuracy against confidence, beside the diagonal of perfect calibration."""
    fig, ax = _axes(size=(5.6, 4.6))
    ax.plot([0, 1], [0, 1], "k:", lw=1)
    for (name, c), marker in zip(curves.items(), MARKERS, strict=False):
        used = c.counts >= MIN_IN_BIN
        ax.plot(c.confidence[used], c.accuracy[used], marker + "-", label=name)
    ax.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    ax.legend(loc="upper left", fontsize=9)
    return fig


def harm_and_risk(harm: Mapping[str, tuple], risk: Mapping[str, tuple], chosen: float) -> "Figure":
    """Left: harm against the threshold, dotted line at the ``chosen`` one. Right: risk, coverage."""
    fig, axes = _axes(2)
    for name, (thresholds, expected) in harm.items():
        axes[0].plot(np.minimum(thresholds, 1), expected, label=name)
    axes[0].axvline(chosen, color="k", ls=":", lw=1)
    axes[0].set(xlabel="ask below this confidence", ylabel="harm a message")
    for name, (coverage, error) in risk.items():
        axes[1].plot(coverage, error, label=name)
    axes[1].set(xlabel="share of messages answered", ylabel="error among them", ylim=0)
    for ax in axes:
        ax.legend()
    return fig


def latency_curves(timed: Mapping[str, Latency]) -> "Figure":
    """Cumulative distribution of the milliseconds of one call, dotted line at 95 %."""
    fig, ax = _axes()
    for name, found in timed.items():
        ordered = np.sort(found.milliseconds)
        ax.plot(ordered, np.arange(1, len(ordered) + 1) / len(ordered), label=name)
    ax.axhline(0.95, color="k", ls=":", lw=1)
    ax.set(xlabel="milliseconds for one message", ylabel="share of messages", xlim=0)
    ax.legend()
    return fig


def movement(moved: Mapping[str, Sequence[float]], similarity: Sequence[float]) -> "Figure":
    """Left: relative size of the update by layer and kind. Right: CKA before and after, by layer."""
    fig, axes = _axes(2)
    for (name, values), marker in zip(moved.items(), MARKERS, strict=False):
        axes[0].plot(range(len(values)), 100 * np.asarray(values), marker + "-", label=name)
    axes[0].set(xlabel="layer", ylabel="moved, % of the weight's norm", ylim=0)
    axes[0].legend(fontsize=9)
    axes[1].plot(range(len(similarity)), similarity, "o-", color="C3")
    label = "linear CKA, before and after"
    axes[1].set(xlabel="after layer (0 = embeddings)", ylabel=label, ylim=(0, 1.02))
    return fig


def energy_curves(
    ranks: Sequence[int], energy: Mapping[str, Sequence[float]], noise: Sequence[float]
) -> "Figure":
    """Share of the update's energy against the rank kept, dotted for pure noise."""
    fig, ax = _axes()
    for name, values in energy.items():
        ax.plot(ranks, values, "o-", markersize=4, label=name)
    ax.plot(ranks, noise, "k:", label="pure noise")
    ax.set(xscale="log", xlabel="rank kept", ylabel="share of the update's energy", ylim=(0, 1.02))
    ax.legend(fontsize=9)
    return fig
