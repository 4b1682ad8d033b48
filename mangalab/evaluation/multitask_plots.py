"""Pictures of tasks that share an encoder: conflicts, projections, gains and losses, waiting times."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..figures import COLORS, MARKERS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .intervals import Interval
    from .latency import Latency


def cosine_panels(grids: Mapping[str, np.ndarray], names: Sequence[str]) -> "Figure":
    """A matrix of cosines for each moment, one colour scale from -1 to 1, numbers in the cells."""
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, len(grids), figsize=(3.0 * len(grids), 4.1), sharey=True)
    for ax, (when, grid) in zip(np.atleast_1d(axes), grids.items(), strict=True):
        ax.imshow(grid, cmap="RdBu", vmin=-1, vmax=1)
        ax.set_title(when)
        ax.set_xticks(range(len(names)), names, rotation=50, ha="right", fontsize=9)
        ax.set_yticks(range(len(names)), names, fontsize=9)
        ax.grid(False)
        for i, j in np.ndindex(grid.shape):
            ax.text(j, i, f"{grid[i, j]:.2f}", ha="center", va="center", fontsize=8,
                    color="white" if abs(grid[i, j]) > 0.6 else "black")  # fmt: skip
    return fig


def forest(rows: Mapping[str, Mapping[str, "Interval"]], label: str) -> "Figure":
    """For each task (rows) the difference of each method (colours) with its interval."""
    from matplotlib import pyplot as plt

    tasks, methods = list(rows), list(next(iter(rows.values())))
    fig, ax = plt.subplots(figsize=(7.2, 0.75 * len(tasks) + 1.4))
    for m, method in enumerate(methods):
        y = np.arange(len(tasks)) + 0.14 * (m - (len(methods) - 1) / 2)
        found = [rows[task][method] for task in tasks]
        x = np.array([d.value for d in found])
        ends = [[d.value - d.low for d in found], [d.high - d.value for d in found]]
        ax.errorbar(x, y, xerr=ends, fmt=MARKERS[m], color=COLORS[m], label=method, lw=1.5, ms=5)
    ax.axvline(0, color="black", lw=1)
    ax.set_yticks(range(len(tasks)), tasks)
    ax.invert_yaxis()
    ax.set_xlabel(label)
    ax.legend(fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.18))
    return fig


def projection(gram: np.ndarray, names: Sequence[str]) -> "Figure":
    """Two gradients in the plane that they span, each with its projection, and both sums."""
    from matplotlib import pyplot as plt

    a, b = np.sqrt(gram[0, 0]), np.sqrt(gram[1, 1])
    cosine = gram[0, 1] / (a * b)
    first, second = np.array([a, 0.0]), b * np.array([cosine, np.sqrt(1 - cosine**2)])
    cut = [first - min(0, gram[0, 1]) / b**2 * second, second - min(0, gram[0, 1]) / a**2 * first]
    arrows = [
        (first, names[0], 0, "-"), (second, names[1], 1, "-"), (first + second, "plain sum", 6, "-"),
        (cut[0], f"{names[0]}, projected", 0, ":"), (cut[1], f"{names[1]}, projected", 1, ":"),
        (cut[0] + cut[1], "PCGrad's sum", 2, "-"),
    ]  # fmt: skip
    fig, ax = plt.subplots(figsize=(6.4, 4.2))
    for tip, label, color, style in arrows:
        ax.plot([0, tip[0]], [0, tip[1]], style, color=COLORS[color], label=label)
        ax.plot(*tip, MARKERS[color], color=COLORS[color])
    ax.set_aspect("equal", adjustable="datalim")
    ax.legend(fontsize=9)
    return fig


def weight_lines(weights: Mapping[str, np.ndarray], names: Sequence[str]) -> "Figure":
    """Weight of each task at each step, (steps, tasks), one panel a method."""
    from matplotlib import pyplot as plt

    fig, axes = plt.subplots(1, len(weights), figsize=(3.2 * len(weights), 3.2))
    for ax, (method, found) in zip(np.atleast_1d(axes), weights.items(), strict=True):
        for t, name in enumerate(names):
            ax.plot(found[:, t], color=COLORS[t], lw=1.3, label=name)
        ax.set_title(method)
        ax.set_xlabel("step")
        ax.set_yscale("log")
        ax.set_yticks([0.25, 0.5, 1, 2, 4], ["0.25", "0.5", "1", "2", "4"])
        ax.minorticks_off()
    fig.legend(*axes[0].get_legend_handles_labels(), ncols=5, fontsize=8, loc="outside lower center")
    return fig


def waiting(times: Mapping[str, "Latency"]) -> "Figure":
    """Share of calls that were done after so many milliseconds, one line a plan."""
    from matplotlib import pyplot as plt

    fig, ax = plt.subplots()
    for i, (name, found) in enumerate(times.items()):
        x = np.sort(found.milliseconds)
        ax.plot(x, (np.arange(len(x)) + 1) / len(x), color=COLORS[i], label=name)
    ax.axhline(0.95, color="black", lw=0.8, ls=":")
    ax.set_xlabel("milliseconds")
    ax.set_ylabel("share of the calls done")
    ax.set_xlim(0, 1.3 * max(found.at(0.97) for found in times.values()))
    ax.legend(fontsize=9)
    return fig
