"""A run against the accepted one, value by value; the rules are in reference/README.md.

Two estimates with 95 % half-widths h1 and h2 (the halves that face each other, which is what
method of variance estimates recovery does: Zou & Donner 2008) differ at 5 % when
|difference| > sqrt(h1^2 + h2^2). Over many values that would be wrong for one in twenty, so the
p-values of all intervals of one diff are judged together (Holm 1979): the chance that two sound,
independent runs show any of them as drift is `family_error`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from .history import is_number
from .tolerances import Tolerances

# outcome of one comparison, most serious first; those of FAILS make `mangalab diff` exit with 1
OUTCOMES = ("flip", "unrepeatable", "drift", "missing", "cost", "new", "within", "unjudged", "same")
FAILS = frozenset(("flip", "unrepeatable", "drift", "missing", "cost"))
ENVIRONMENT = ("device", "device_class", "dtype", "machine", "threads", "versions")


@dataclass(frozen=True)
class Row:
    """One thing compared: `key`, how (`kind`), both sides, and what came of it."""

    key: str
    kind: str
    old: Any
    new: Any
    outcome: str
    detail: str = ""
    p: float | None = None
    outside: bool = False  # of the joint 95 % interval, before the correction


@dataclass(frozen=True)
class Drift:
    """One chapter against its reference; `state` is compared, no-reference or no-good-run."""

    chapter: str
    state: str
    note: str = ""
    stale: str | None = None
    same_inputs: bool = False
    same_run: bool = False
    changed: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    run: dict[str, Any] = field(default_factory=dict)
    accepted: dict[str, Any] = field(default_factory=dict)

    @property
    def fails(self) -> bool:
        """Whether this chapter drifted, or could not be compared because it did not run."""
        return self.state == "no-good-run" or any(row.outcome in FAILS for row in self.rows)


def compare(
    reference: dict[str, Any], run: dict[str, Any], limits: Tolerances, computed: frozenset[str]
) -> Drift:
    """Compare two reduced records; interval rows are left to `settle`, which sees all chapters.

    `computed` names the claims that arithmetic settles: their measured values are exact.
    """
    changed = tuple(_changed(reference, run))
    same = bool(run.get("key")) and run.get("key") == reference.get("key") and not changed
    strict = same and limits.bit_equal(run.get("device_class"))
    pair = _Pair(reference, run, limits, computed, strict)
    known = ("started", "commit", "dirty", "key", *ENVIRONMENT)
    return Drift(
        chapter=run["chapter"],
        state="compared",
        same_inputs=same,
        same_run=same and run.get("started") == reference.get("started"),
        changed=changed,
        rows=tuple(pair.rows()),
        run={name: run.get(name) for name in known},
        accepted={name: reference.get(name) for name in known},
    )


def _changed(old: dict[str, Any], new: dict[str, Any]) -> Iterator[str]:
    """Which inputs differ: parts of the run key, packages, machine, precision."""
    for name in sorted((old.get("inputs") or {}).keys() | (new.get("inputs") or {}).keys()):
        if (old.get("inputs") or {}).get(name) != (new.get("inputs") or {}).get(name):
            yield name
    for name in ENVIRONMENT:
        if old.get(name) != new.get(name):
            yield name


class _Pair:
    """The rows of one chapter."""

    def __init__(self, old: dict, new: dict, limits: Tolerances, computed: frozenset, strict: bool):
        self.old, self.new, self.limits, self.computed = old, new, limits, computed
        self.strict = strict  # the same inputs on a deterministic device: every bit must agree
        self.chapter = new["chapter"]
        places = ("device", "device_class", "machine", "threads")
        self.same_machine = all(old.get(name) == new.get(name) for name in places)

    def rows(self) -> Iterator[Row]:
        for key, a, b in self._both("comparisons"):
            yield from self._word(f"comparison {key}", a, b, "verdict")
            yield from self._measured(f"comparison {key}", a, b, "difference")
        for key, a, b in self._both("decisions"):
            yield from self._word(f"decision {key}", a, b, "resolution")
            if a and b and a.get("agrees") != b.get("agrees"):
                yield from self._word(f"decision {key}, agrees with the scenario", a, b, "agrees")
        for key, a, b in self._both("claims"):
            yield from self._verdict(f"claim {key}", a, b)
            yield from self._measured(f"claim {key}", a, b, "measured", key in self.computed)
        for key, a, b in self._both("parameters"):
            yield self._plain(f"parameter {key}", "exact", a, b, a == b)
        for key, a, b in self._both("values"):
            if a is None or b is None:
                yield self._one_sided(key, a, b, "value")
            else:
                yield from self._measured(key, a, b, "value")
        for key, floor in (("seconds", self.limits.seconds), ("peak_mb", 0.0)):
            yield self._time(key, self.old.get(key), self.new.get(key), floor)

    def _both(self, section: str) -> Iterator[tuple[str, Any, Any]]:
        old, new = self.old.get(section) or {}, self.new.get(section) or {}
        for key in [*old, *(key for key in new if key not in old)]:
            yield key, old.get(key), new.get(key)

    def _one_sided(self, key: str, a: dict | None, b: dict | None, name: str) -> Row:
        old, new = (a or {}).get(name), (b or {}).get(name)
        return Row(key, "", old, new, "missing" if b is None else "new")

    def _word(self, key: str, a: dict | None, b: dict | None, name: str) -> Iterator[Row]:
        if a is None or b is None:
            yield self._one_sided(key, a, b, name)
            return
        same = a.get(name) == b.get(name)
        why = "the same inputs" if self.strict and not same else ""
        yield Row(key, "word", a.get(name), b.get(name), "same" if same else "flip", why)

    def _verdict(self, key: str, a: dict | None, b: dict | None) -> Iterator[Row]:
        """The word of a claim; on a time it flips only if the two intervals lie apart."""
        for row in self._word(key, a, b, "verdict"):
            if row.outcome == "flip" and self.limits.kind(self.chapter, key, b) == "time":
                if not self.same_machine:
                    row = replace(row, outcome="unjudged", detail="a time on another machine")
                elif _overlap(a, b):
                    row = replace(row, outcome="within", detail="a time; the two intervals overlap")
            yield row

    def _measured(
        self, key: str, a: dict | None, b: dict | None, name: str, computed: bool = False
    ) -> Iterator[Row]:
        """The row of a number; nothing where it is missing (the word's row says so) or is text."""
        if a is None or b is None or (a.get(name) is None and b.get(name) is None):
            return
        a, b = _parsed(a, name), _parsed(b, name)
        old, new = a.get(name), b.get(name)
        # a claim's word is what it says; the text beside it may quote any digits
        if name == "measured" and not (is_number(old) and is_number(new)):
            return
        entry = {**a, "value": old}
        if b.get("low") is None:
            entry["low"] = None
        kind = "exact" if computed else self.limits.kind(self.chapter, key, entry)
        if kind == "time" and self.same_machine and _overlap(a, b):
            yield Row(key, "time", old, new, "within", "the two intervals overlap")
        elif kind == "time":
            yield self._time(key, old, new, 0.0)
        elif old == new and not (self.strict and a != b):
            yield Row(key, kind, old, new, "same", p=1.0 if _interval(a, b) else None)
        else:
            yield self._changed_number(key, kind, a, b, old, new)

    def _changed_number(self, key: str, kind: str, a: dict, b: dict, old: Any, new: Any) -> Row:
        limit = self.limits.relative(self.chapter, key, "exact" if kind == "exact" else "seed")
        if not (is_number(old) and is_number(new)):
            row = self._plain(key, kind, old, new, kind == "seed")  # text: only by an exception
        elif kind == "exact":
            whole = isinstance(old, int) and isinstance(new, int)
            row = self._plain(key, kind, old, new, not whole and _near(old, new, limit, 0))
        elif joint := (half_width(a, b, old, new) if _interval(a, b) else 0.0):
            p = p_value(abs(new - old), joint, min(_freedom(a), _freedom(b)))
            words = f"moved {new - old:+.3g}, joint 95 % half-width {joint:.3g}, p = {p:.2g}"
            row = Row(key, kind, old, new, "within", words, p, abs(new - old) > joint)
        else:
            row = self._plain(key, kind, old, new, _near(old, new, limit, self.limits.floor))
            row = replace(row, detail=f"{_relative(old, new)} (limit {limit:.3g})")
        if self.strict:
            row = replace(row, outcome="unrepeatable", p=None)
        return row

    def _plain(self, key: str, kind: str, old: Any, new: Any, good: bool) -> Row:
        return Row(key, kind, old, new, "same" if old == new else "within" if good else "drift")

    def _time(self, key: str, old: Any, new: Any, floor: float) -> Row:
        if not (is_number(old) and is_number(new)) or min(old, new) <= 0:
            return Row(key, "time", old, new, "unjudged", "no positive time on both sides")
        ratio, limit = new / old, self.limits.relative(self.chapter, key, "time")
        if not self.same_machine:
            return Row(key, "time", old, new, "unjudged", f"{ratio:.2f} times, on another machine")
        bad = max(ratio, 1 / ratio) > limit and abs(new - old) > floor
        return Row(key, "time", old, new, "cost" if bad else "within", f"{ratio:.2f} times")


# how an Interval is shown, and so what a text value that quotes one looks like
FIGURE = r"([+-]?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?%?)"
QUOTED = re.compile(rf"{FIGURE} \[{FIGURE}, {FIGURE}\]")


def _parsed(entry: dict, name: str) -> dict:
    """An entry whose value is the text of an interval, as the interval; others as they are."""
    match = QUOTED.fullmatch(entry[name]) if isinstance(entry.get(name), str) else None
    if match is None:
        return entry
    value, low, high = (_figure(text) for text in match.groups())
    return {**entry, name: value, "low": low, "high": high}


def _figure(text: str) -> float:
    number = float(text.rstrip("%").replace(",", ""))
    return number / 100 if text.endswith("%") else number


def half_width(a: dict, b: dict, old: float, new: float) -> float:
    """95 % half-width of the difference of two estimates from the halves that face each other."""
    if new > old:
        return math.hypot(a["high"] - old, new - b["low"])
    return math.hypot(old - a["low"], b["high"] - new)


def p_value(distance: float, joint: float, freedom: float) -> float:
    """Two-sided p of a difference whose 95 % half-width is `joint`; 0.05 exactly at the edge.

    Student's t with the smaller number of degrees of freedom carries the interval into the tail:
    with three seeds the tail is heavy, and a normal one would cry wolf after the correction.
    """
    from scipy.special import ndtri, stdtr, stdtrit

    if math.isinf(freedom) or freedom > 1e6:
        freedom, quantile = 1e6, float(ndtri(0.975))
    else:
        quantile = float(stdtrit(freedom, 0.975))
    return float(2 * stdtr(freedom, -quantile * distance / joint))


def _freedom(entry: dict) -> float:
    """Runs less one; where runs are not counted, observations less one."""
    count = entry.get("seeds") if (entry.get("seeds") or 0) > 1 else entry.get("n")
    return max(1, count - 1) if count else math.inf


def settle(drifts: list[Drift], limits: Tolerances) -> list[Drift]:
    """Judge the interval rows of all chapters together (Holm's step-down)."""
    tested = sorted(row.p for drift in drifts for row in drift.rows if row.p is not None)
    threshold = -1.0
    for rank, p in enumerate(tested):
        if p > limits.family_error / (len(tested) - rank):
            break
        threshold = p
    return [
        replace(d, rows=tuple(
            replace(r, outcome="drift") if r.p is not None and r.p <= threshold else r for r in d.rows
        ))
        for d in drifts
    ]  # fmt: skip


def counts(drifts: list[Drift]) -> dict[str, int]:
    """How many values were compared, by kind and outcome; what chance alone would put outside."""
    rows = [row for drift in drifts for row in drift.rows]
    found = {name: sum(row.outcome == name for row in rows) for name in OUTCOMES}
    tested, outside = sum(row.p is not None for row in rows), sum(row.outside for row in rows)
    return {"compared": len(rows), "intervals": tested, "outside": outside, **found}


def _interval(a: dict, b: dict) -> bool:
    return all(entry.get(name) is not None for entry in (a, b) for name in ("low", "high"))


def _overlap(a: dict, b: dict) -> bool:
    return _interval(a, b) and a["low"] <= b["high"] and b["low"] <= a["high"]


def _near(old: float, new: float, relative: float, floor: float) -> bool:
    return math.isclose(old, new, rel_tol=relative, abs_tol=floor)


def _relative(old: float, new: float) -> str:
    return f"moved {(new - old) / abs(old):+.2%}" if old else f"moved {new - old:+.3g} from zero"
