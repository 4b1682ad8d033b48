"""Pictures of the landing page as inline SVG: plain functions of numbers, colours from the page's CSS.

Lengths are in the picture's own units (a card is 420 wide, the banner 860). Every picture carries its
text alternative.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDE, HIGH = 420, 250


@dataclass(frozen=True)
class Point:
    """A measured value with its interval, in the unit of its axis; no interval where none is known."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Row:
    """One line of a dot chart; ``claimed`` marks what somebody said rather than what was measured."""

    name: str
    point: Point
    text: str
    claimed: bool = False


def picture(body: str, alt: str, width: int = WIDE, height: int = HIGH) -> str:
    """An SVG with its text alternative."""
    return (
        f'<svg class="ml-draw" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(alt)}">'
        f"{body}</svg>"
    )


def text(x: float, y: float, words: str, kind: str = "dim", anchor: str = "start") -> str:
    """Words at a place."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str = "axis") -> str:
    """A straight line."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def dot(x: float, y: float, kind: str = "mark") -> str:
    """A round mark."""
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="5"/>'


def rect(x: float, y: float, width: float, height: float, kind: str) -> str:
    """A bar."""
    return (
        f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}" '
        f'height="{height:.1f}"/>'
    )


def shares(parts: Sequence[tuple[str, int]], alt: str) -> str:
    """One bar cut by counts, the first part in the accent colour; names and counts below."""
    total, x, body, width = sum(count for _, count in parts), 0.0, [], 860
    for place, (_, count) in enumerate(parts):
        long = width * count / total
        body.append(rect(x, 4, long - 2, 34, "mark" if place == 0 else f"part part-{min(place, 5)}"))
        x += long
    return picture("".join(body), alt, width, 42)


def bars(rows: Sequence[tuple[str, float, str, bool]], alt: str) -> str:
    """Horizontal bars from zero: (name, value, text, whether it is the right one)."""
    top, step = max(value for _, value, _, _ in rows), HIGH / (len(rows) + 0.4)
    body = []
    for place, (name, value, words, right) in enumerate(rows):
        y = step * (place + 0.35)
        body.append(text(0, y + 12, name))
        body.append(rect(0, y + 22, WIDE * value / top, 30, "mark" if right else "claimed-bar"))
        inside = value / top > 0.5
        x = WIDE * value / top + (-10 if inside else 10)
        kind = ("on-mark" if right else "on-claimed") if inside else "ink"
        body.append(text(x, y + 43, words, kind, "end" if inside else "start"))
    return picture("".join(body), alt)


def dots(rows: Sequence[Row], top: float, alt: str, unit: str = "%") -> str:
    """Dots with intervals on one scale from zero to ``top``, a row each."""
    left, right, step = 8, WIDE - 14, (HIGH - 34) / len(rows)

    def x(value: float) -> float:
        return left + (right - left) * min(max(value, 0), top) / top

    body = [line(x(0), HIGH - 24, x(top), HIGH - 24)]
    for tick in (0, top / 2, top):
        body.append(line(x(tick), 6, x(tick), HIGH - 24, "grid"))
        body.append(text(x(tick), HIGH - 6, f"{tick:g} {unit}", "dim", tick_anchor(tick, top)))
    for place, row in enumerate(rows):
        y = step * (place + 0.72)
        body.append(text(left, y - 15, row.name, "dim"))
        body.append(text(right, y - 15, row.text, "ink", "end"))
        if row.point.low is not None and row.point.high is not None:
            body.append(line(x(row.point.low), y, x(row.point.high), y, "whisker"))
        body.append(dot(x(row.point.value), y, "claimed" if row.claimed else "mark"))
    return picture("".join(body), alt)


def tick_anchor(tick: float, top: float) -> str:
    """Labels at the ends of an axis stay inside of the picture."""
    return {0: "start", top: "end"}.get(tick, "middle")


def panels(parts: Sequence[tuple[str, Sequence[tuple[str, Point, str]]]], alt: str) -> str:
    """Charts side by side: (title, [(label below, point, text)]); each has its own scale from zero."""
    wide = (WIDE - 24) / len(parts)
    drawn = (
        f'<g transform="translate({place * (wide + 24):.1f} 0)">{panel(title, points, wide)}</g>'
        for place, (title, points) in enumerate(parts)
    )
    return picture("".join(drawn), alt)


def panel(title: str, points: Sequence[tuple[str, Point, str]], wide: float) -> str:
    """One chart: dots above their labels, with intervals cut at zero."""
    ends = [p.value if p.high is None else p.high for _, p, _ in points]
    top, floor, ceiling = 1.12 * max([*ends, 1e-9]), HIGH - 26, 40

    def y(value: float) -> float:
        return floor - (floor - ceiling) * max(0.0, value) / top

    body = [text(0, 14, title, "dim"), line(0, floor, wide, floor)]
    for place, (label, point, words) in enumerate(points):
        x = wide * (place + 0.5) / len(points)
        if point.low is not None and point.high is not None:
            body.append(line(x, y(point.low), x, y(point.high), "whisker"))
        body.append(dot(x, y(point.value)))
        body.append(text(x + 9, y(point.value) + 4, words, "ink small"))
        body.append(text(x, HIGH - 7, label, "dim", "middle"))
    return "".join(body)


def curves(
    ranks: Sequence[int],
    series: Sequence[tuple[str, Sequence[float], str]],
    band: tuple[Sequence[float], Sequence[float]],
    goal: float,
    alt: str,
) -> str:
    """Shares of energy against rank (log scale), with a band and a dotted goal; shares lie in 0..1."""
    left, right, floor, ceiling = 34, WIDE - 12, HIGH - 26, 12

    def at(place: int, value: float) -> str:
        x = left + (right - left) * place / (len(ranks) - 1)
        return f"{x:.1f},{floor - (floor - ceiling) * value:.1f}"

    low = [at(i, v) for i, v in enumerate(band[0])]
    high = [at(i, v) for i, v in enumerate(band[1])]
    body = [f'<polygon class="band" points="{" ".join([*low, *reversed(high)])}"/>']
    for share in (0, 0.5, 1):
        height = floor - (floor - ceiling) * share
        body.append(line(left, height, right, height, "axis" if share == 0 else "grid"))
        body.append(text(left - 6, height + 4, f"{share:.0%}".replace("%", ""), "dim", "end"))
    height = floor - (floor - ceiling) * goal
    body.append(line(left, height, right, height, "goal"))
    for place, rank in enumerate(ranks):
        x = float(at(place, 0).partition(",")[0])
        body.append(text(x, HIGH - 8, str(rank), "dim", "middle"))
    for name, values, kind in series:
        points = " ".join(at(i, v) for i, v in enumerate(values))
        body.append(f'<polyline class="{kind}" points="{points}"/>')
        x, y = at(1, values[1]).split(",")
        body.append(text(float(x) + 10, float(y) + 18, name, "ink small"))
    return picture("".join(body), alt)
