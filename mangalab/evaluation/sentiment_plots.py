"""Figures of chapter 08, one function each; all return a matplotlib figure for ``lab.show``."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .intervals import Interval
from .plots import MARKERS, _axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def rate_maps(rates: Mapping[str, np.ndarray]) -> "Figure":
    """Learning rate of each part (rows: layer 0 up to the head) over the steps; white is frozen."""
    from matplotlib.colors import LogNorm

    fig, axes = _axes(len(rates), size=(8.6, 3.2))
    low = min(r[r > 0].min() for r in rates.values())
    norm = LogNorm(max(low, 1e-6), max(r.max() for r in rates.values()))
    for ax, (name, found) in zip(axes, rates.items(), strict=True):
        drawn = np.ma.masked_less_equal(found, 0)
        image = ax.imshow(drawn, aspect="auto", origin="lower", cmap="viridis_r", norm=norm)
        ax.set_title(name, fontsize=10)
        ax.set_yticks(range(len(found)), [*map(str, range(len(found) - 1)), "head"])
        ax.set(xlabel="step", ylabel="layer" if ax is axes[0] else "")
        ax.grid(False)
    fig.colorbar(image, ax=axes, label="learning rate")
    return fig


def base_rates(curves: Mapping[str, np.ndarray], prevalence: np.ndarray, at: float) -> "Figure":
    """Precision against prevalence on a logarithmic axis, dotted line at the prevalence ``at``."""
    fig, ax = _axes()
    for name, precision in curves.items():
        ax.plot(100 * prevalence, precision, label=name)
    ax.axvline(100 * at, color="k", ls=":", lw=1)
    ax.set(xscale="log", xlabel="conversations that need a person, %", ylim=(0, 1))
    ax.set_ylabel("share of hand-offs that were needed")
    ax.set_xticks([1, 3, 10, 30], ["1", "3", "10", "30"])
    ax.minorticks_off()
    ax.legend(fontsize=9)
    return fig


def timeline(seen: Mapping[str, Sequence[tuple[int, int, float]]]) -> "Figure":
    """Above: layers in training over the steps. Below: validation score at the same steps."""
    from matplotlib import pyplot as plt

    fig, (above, below) = plt.subplots(
        2, 1, figsize=(7.2, 5.2), sharex=True, height_ratios=(1, 2)
    )
    for (name, points), marker in zip(seen.items(), MARKERS + "PX", strict=False):
        steps, layers, scores = zip(*points, strict=True)
        above.step(steps, layers, where="post", label=name)
        below.plot(steps, scores, marker + "-", markersize=5, label=name)
    above.set(ylabel="layers training", ylim=(-0.3, 6.5))
    below.set(xlabel="step", ylabel="macro average precision, validation")
    below.legend(fontsize=9, ncols=2)
    return fig


def precision_recall(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], points: Mapping[str, tuple[float, float]],
    shares: Mapping[str, float],
) -> "Figure":
    """A panel a label: precision against recall, the operating point, dotted the label's share."""
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(2, 3, figsize=(8.4, 5.2), sharex=True, sharey=True)
    for ax, name in zip(axes.flat, points, strict=False):
        if name in curves:
            ax.plot(*curves[name])
        ax.plot(*points[name], "o", color="C1", markersize=8)
        ax.axhline(shares[name], color="k", ls=":", lw=1)
        ax.set_title(name, fontsize=10)
        ax.set(xlim=(0, 1.02), ylim=(0, 1.02))
    for ax in axes[1]:
        ax.set_xlabel("recall")
    for ax in axes[:, 0]:
        ax.set_ylabel("precision")
    return fig


def alarms(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], points: Mapping[str, tuple[float, float]],
    costs: Mapping[str, tuple[np.ndarray, np.ndarray]], chosen: Mapping[str, float],
) -> "Figure":
    """Left: recall against false alarms with operating points. Right: cost against the threshold."""
    fig, axes = _axes(2)
    for name, (false_rate, recall) in curves.items():
        axes[0].plot(false_rate, recall, drawstyle="steps-post", label=name)
    for (name, point), marker in zip(points.items(), "o^s", strict=False):
        axes[0].plot(*point, marker, color="k", markersize=7, label=name)
    axes[0].set(xlabel="false alarms, share of calm talks", ylabel="escalations caught")
    axes[0].set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))
    for index, (name, (cuts, cost)) in enumerate(costs.items()):
        axes[1].plot(cuts, cost, drawstyle="steps-post", color=f"C{index}", label=name)
        axes[1].axvline(chosen[name], color=f"C{index}", ls=":", lw=1)
    axes[1].set(xlabel="threshold", ylabel="cost of 1,000 conversations")
    for ax in axes:
        ax.legend(fontsize=8)
    return fig


def ceilings(kappas: Sequence[float], lines: Mapping[str, Sequence[Interval]], gate: float) -> "Figure":
    """What a perfect model scores against noisy labels, over the annotators' kappa; dotted: gate."""
    fig, ax = _axes()
    for (name, found), marker in zip(lines.items(), MARKERS, strict=False):
        ax.plot(kappas, [f.value for f in found], marker + "-", label=name)
        ax.fill_between(kappas, [f.low for f in found], [f.high for f in found], alpha=0.15)
    ax.axhline(gate, color="k", ls=":", lw=1)
    ax.set(xlabel="mean Fleiss' kappa of three annotators", ylabel="exact match of a perfect model")
    ax.set_ylim(0, 1.02)
    ax.legend()
    return fig


def layer_lines(lines: Mapping[str, Sequence[float]], similarity: Mapping[str, Sequence[float]]):
    """Left: relative size of the update by layer. Right: CKA to the pretrained encoder."""
    fig, axes = _axes(2)
    for (name, values), marker in zip(lines.items(), MARKERS, strict=False):
        axes[0].plot(range(len(values)), 100 * np.asarray(values), marker + "-", label=name)
        axes[1].plot(range(len(similarity[name])), similarity[name], marker + "-", label=name)
    axes[0].set(xlabel="layer", ylabel="moved, % of the weight's norm", ylim=0)
    axes[1].set(xlabel="after layer (0 = embeddings)", ylabel="linear CKA to before", ylim=(0, 1.02))
    axes[0].legend(fontsize=9)
    return fig
