"""Small pictures of records as inline SVG: no script, no library, colours from the page's CSS.

Every picture that says more than the text beside it has ``role="img"`` and a label in words.
"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from ..pages import number

WIDE = 1.5  # a bar's scale ends at this many budgets, where a run is reported as over


def bar(value: float, budget: float) -> Markup:
    """How much of a budget was used; hidden from screen readers, as the figures stand beside it."""
    scale = max(WIDE * budget, value)
    used, mark = (min(100, 100 * part / scale) for part in (value, budget))
    kind = "over" if value > budget else "within"
    return Markup(
        '<svg class="budget {}" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" width="100" height="8"/><rect class="used" width="{:.1f}" height="8"/>'
        '<rect class="mark" x="{:.1f}" width="1.5" height="8"/></svg>'
    ).format(kind, used, mark)


def spread(values: Sequence[float]) -> str:
    """Lowest and highest of some values in words."""
    low, high = min(values), max(values)
    return number(low) if low == high else f"{number(low)} to {number(high)}"


def interval(difference: float, low: float, high: float, reach: float, kind: str, label: str) -> Markup:
    """One row of a forest plot: point, interval and the zero line, from -reach to +reach."""
    left, point, right = (100 + 96 * max(-1, min(1, v / reach)) for v in (low, difference, high))
    return Markup(
        '<svg class="forest forest-{}" viewBox="0 0 200 20" role="img" aria-label="{}">'
        '<line class="scale" x1="4" x2="196" y1="10" y2="10"/>'
        '<line class="zero" x1="100" x2="100" y1="1" y2="19"/>'
        '<line class="span" x1="{:.1f}" x2="{:.1f}" y1="10" y2="10"/>'
        '<circle class="point" cx="{:.1f}" cy="10" r="4"/></svg>'
    ).format(kind, label, left, max(right, left + 1), point)


def spark(values: Sequence[float | None], label: str) -> Markup:
    """A line over runs from old to new; None is a run without a value (a red tick at the foot)."""
    known = [value for value in values if value is not None]
    low, high = min(known, default=0.0), max(known, default=0.0)
    step = 112 / max(1, len(values) - 1)
    height = (lambda v: 22 - 16 * (v - low) / (high - low)) if high > low else (lambda v: 14)
    start = 116 - step * (len(values) - 1)
    points = [(start + i * step, height(v)) for i, v in enumerate(values) if v is not None]
    gaps = [start + i * step for i, value in enumerate(values) if value is None]
    ticks = "".join(f'<line class="gap" x1="{x:.1f}" x2="{x:.1f}" y1="23" y2="29"/>' for x in gaps)
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    last = points[-1:]
    end = "".join(f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>' for x, y in last)
    shapes = Markup(f'<polyline class="line" points="{line}"/>{ticks}{end}')
    return Markup(
        '<svg class="spark" viewBox="0 0 120 30" role="img" aria-label="{}">{}</svg>'
    ).format(label, shapes)


def energy(ranks: Sequence[int], bands: Sequence[tuple[float, float, float]], label: str) -> Markup:
    """Share of energy by rank: lowest, median and highest of many matrices, ranks evenly spaced."""
    xs = [34 + 210 * i / max(1, len(ranks) - 1) for i in range(len(ranks))]
    ys = [[112 - 100 * share for share in band] for band in bands]
    upper = [f"{x:.1f},{y[2]:.1f}" for x, y in zip(xs, ys, strict=True)]
    lower = [f"{x:.1f},{y[0]:.1f}" for x, y in zip(xs, ys, strict=True)]
    middle = " ".join(f"{x:.1f},{y[1]:.1f}" for x, y in zip(xs, ys, strict=True))
    grid = "".join(
        f'<line class="grid" x1="34" x2="244" y1="{112 - share}" y2="{112 - share}"/>'
        f'<text x="28" y="{116 - share}" text-anchor="end">{share} %</text>'
        for share in (0, 50, 100)
    )
    names = "".join(
        f'<text x="{x:.1f}" y="128" text-anchor="middle">{int(rank)}</text>'
        for x, rank in zip(xs, ranks, strict=True)
    )
    shapes = Markup(
        f'{grid}{names}<polygon class="band" points="{" ".join([*upper, *reversed(lower)])}"/>'
        f'<polyline class="line" points="{middle}"/>'
        f'<text x="139" y="144" text-anchor="middle">rank</text>'
    )
    return Markup(
        '<svg class="energy" viewBox="0 0 256 148" role="img" aria-label="{}">{}</svg>'
    ).format(label, shapes)
