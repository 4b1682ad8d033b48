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
