"""A chapter's handle: everything a reader sees passes through it, and so into the run record."""

import math
import os
import string
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from . import claims, debate, figures
from .profiles import Profile, from_environment
from .record import Fragment, RecordError, plain

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "numpy", "scikit-learn", "mangalab")


def find_root(start: Path | None = None) -> Path:
    """Root of the project: ``MANGALAB_ROOT``, or the first folder upward that has chapters.yml."""
    if named := os.environ.get("MANGALAB_ROOT"):
        return Path(named)
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[1]):
        if (folder / "chapters.yml").exists():
            return folder
    raise FileNotFoundError(f"no chapters.yml at or above {here}: start inside the project's folder")


class Shown(str):
    """A word that is on the page already: a cell that ends with it does not print it again."""

    def _ipython_display_(self) -> None:
        pass


class Lab:
    """Says, shows, compares, judges and decides; records each of them. Open one per chapter."""

    def __init__(self, chapter: str, profile: Profile, seed: int, seeds: Sequence[int], root: Path):
        self.chapter, self.profile, self.seed, self.root = chapter, profile, seed, root
        self.started = time.perf_counter()
        self.fragment = Fragment(chapter, profile.name, seed, seeds=list(seeds) or [seed])
        self.fragment.device, self.fragment.dtype = profile.device, str(profile.dtype).split(".")[-1]
        self.fragment.versions = {name: _version(name) for name in LIBRARIES}

    @classmethod
    def open(cls, chapter: str, seed: int = 0, seeds: Sequence[int] = (), **parameters) -> "Lab":
        """Open the lab of ``chapter`` (the notebook's name without suffix).

        The profile comes from ``MANGALAB_PROFILE``; ``parameters`` are recorded as given.
        """
        _silence()
        _seed_everything(seed)
        figures.use_style()
        lab = cls(chapter, from_environment(), seed, seeds, find_root())
        lab.fragment.parameters = plain(parameters)
        lab._flush()
        return lab

    # ------------------------------------------------------------------ numbers in prose
    def say(self, template: str, **values) -> None:
        """Show ``template`` as Markdown with ``values`` filled in; record each value under its name.

        Fields use Python's format language, ``{recall:.1%}``. A value may be an
        :class:`~mangalab.evaluation.intervals.Interval`. The same name with another value is an
        error, and so is a value that is not finite or not used.
        """
        _markdown(self.text(template, **values))

    def text(self, template: str, **values) -> str:
        """What :meth:`say` would show, recorded in the same way but not shown."""
        fields = [f for f in string.Formatter().parse(template) if f[1] is not None]
        used = {f[1].split(".")[0].split("[")[0] for f in fields}
        if used != set(values):
            raise RecordError(
                f"say: fields {sorted(used)} and values {sorted(values)} differ: "
                f"{sorted(used ^ set(values))}"
            )
        specs = {name: spec for _, name, spec, _ in fields if name in values}
        for name in values:  # {recall.low} alone records recall too
            self._put(name, values[name], specs.get(name) or "")
        self._flush()
        return template.format(**values)

    def value(self, key: str, value: object, unit: str = "", spec: str = "", **extra) -> None:
        """Record a value without showing it; ``extra`` may hold n, low, high and text."""
        self._put(key, value, spec, unit=unit or None, **extra)
        self._flush()

    def _put(self, key: str, value: object, spec: str, **extra) -> None:
        number = getattr(value, "value", value)
        number = number.item() if getattr(number, "ndim", None) == 0 else number  # NumPy, torch
        if isinstance(number, float) and not math.isfinite(number):
            raise RecordError(f"value {key!r} is {number}: a page never shows it; find out why")
        entry = {"value": number, "text": format(value, spec), **extra}
        if hasattr(value, "low"):
            entry |= {"low": value.low, "high": value.high, "n": value.n}
        self.fragment.put(key, entry)

    # ------------------------------------------------------------------ figures and tables
    def show(self, fig, name: str, alt: str, caption: str) -> None:
        """Show a matplotlib figure with its alternative text and caption, and record both."""
        from IPython.display import Image, display

        figures.check_alt(alt, caption)
        display(Image(figures.png(fig), metadata={"alt": alt}, alt=alt))
        _markdown(f"*{caption}*")
        self.fragment.add("figures", {"id": name, "alt": alt, "caption": caption})
        self._flush()

    def table(self, rows: Sequence[dict], caption: str = "") -> None:
        """Show rows of ready-made cells as a Markdown table; numbers get three significant digits."""
        if not rows:
            raise ValueError("table: no rows")
        columns = list(rows[0])
        lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
        lines += [f"| {' | '.join(_cell(row.get(c)) for c in columns)} |" for row in rows]
        _markdown("\n".join(lines) + (f"\n\n*{caption}*" if caption else ""))

    # ------------------------------------------------------------------ comparisons
    def compare(
        self,
        id: str,
        a,
        b,
        metric: str,
        names: tuple[str, str] = ("a", "b"),
        higher_is_better: bool = True,
        spec: str = "+.3f",
    ):
        """Compare ``a`` with ``b``: difference a - b, 95 % interval, n, and the word it allows.

        A flat list is one number per seed (paired t). A list of lists, shape (seeds, examples),
        resamples both; with one seed it resamples the examples of two fixed models in pairs.
        Returns the difference as a :class:`~mangalab.evaluation.intervals.Difference`.
        """
        from .evaluation.intervals import Difference, verdict

        found, runs = _difference(a, b)
        word = verdict(found.low, found.high, higher_is_better)
        entry = {"id": id, "a": names[0], "b": names[1], "metric": metric, "n": found.n,
                 "difference": found.value, "low": found.low, "high": found.high,
                 "seeds": runs, "method": found.method, "verdict": word}
        self.fragment.add("comparisons", entry)
        self._flush()
        _markdown(
            f"> **{names[0]}** against **{names[1]}**, {metric}: difference {found:{spec}}, "
            f"n = {found.n} ({found.method}): **{word}**."
        )
        return Difference(**vars(found), word=word)

    # ------------------------------------------------------------------ claims
    def claim(self, id: str, measured=None, low=None, high=None, n=None, holds=None, note="") -> str:
        """Judge the statement ``id`` of ``book/claims.yml`` by this run; returns the verdict.

        Pass ``measured`` (a number or an interval) for a numeric claim. For a claim in words pass
        ``holds``, computed from measurements (true, false, or ``"inconclusive"``), and ``measured``
        as text. With neither, the claim is recorded as beyond this run; ``note`` says why.
        """
        entry = claims.load(self.root).get(id)
        if entry is None:
            raise claims.ClaimError(f"claim {id!r} is not in book/claims.yml: add it there first")
        if hasattr(measured, "low"):
            measured, low, high, n = measured.value, measured.low, measured.high, measured.n
        word = _judge_entry(entry, measured, low, high, holds)
        self.fragment.add("claims", {
            "id": id, "claimed": entry.get("claimed"), "measured": measured, "low": low,
            "high": high, "n": n, "verdict": word, "note": note})
        self._flush()
        return Shown(word)

    def claims_table(self) -> None:
        """Show every claim that this chapter has judged."""
        ledger = claims.load(self.root)
        rows = [
            {"claim": found["id"], "the scenario says": ledger[found["id"]]["text"],
             "measured here": _measured(found), "verdict": f"**{found['verdict']}**"}
            for found in self.fragment.claims
        ]
        self.table(rows)

    # ------------------------------------------------------------------ decisions
    def decide(
        self, id: str, question: str, options: Sequence[debate.Option], rule: debate.Rule,
        lines: dict[str, str], scenario: str, values: dict | None = None,
    ) -> str:
        """Resolve ``question`` by ``rule`` and show the argument; returns the chosen option's name.

        ``lines`` are templates filled from ``values``; ``scenario`` is what the scenario chose.
        """
        chosen = debate.resolve(question, options, rule)
        spoken = {who: self._line(line, values or {}) for who, line in lines.items()}
        agrees = chosen == scenario
        verdict = "as the scenario did" if agrees else f"where the scenario chose **{scenario}**"
        _markdown(
            f"**{question}**\n\n{debate.options_table(options, chosen)}\n\n"
            f"{debate.dialogue(spoken)}\n\n> **Rule.** {rule.text}\n>\n"
            f"> **Resolution.** **{chosen}**, {verdict}."
        )
        self.fragment.add("decisions", {
            "id": id, "question": question, "rule": rule.text, "resolution": chosen,
            "scenario": scenario, "agrees": agrees,
            "options": [{"name": o.name, "metrics": o.metrics} for o in options]})
        self._flush()
        return Shown(chosen)

    def _line(self, line: str, values: dict) -> str:
        used = {f[1].split(".")[0] for f in string.Formatter().parse(line) if f[1]}
        if missing := sorted(used - set(values)):
            raise debate.DecisionError(f"the line {line!r} quotes {missing}: add to values=")
        return self.text(line, **{key: values[key] for key in used})

    # ------------------------------------------------------------------ spectra, drill, card
    def spectrum(self, name: str, rows: Iterable[dict]) -> None:
        """Record the rows of :func:`mangalab.spectrum.summary` under ``name`` for the atlas."""
        self.fragment.add("spectra", {"id": name, "rows": list(rows)})
        self._flush()

    def drill(self) -> None:
        """Show the chapter's interview questions; answers carry the values measured in this run."""
        from .book.interview import load_bank, to_markdown

        texts = {key: entry["text"] for key, entry in self.fragment.values.items()}
        bank = load_bank(self.root / "book" / "interview" / f"{self.chapter}.yml")
        _markdown(to_markdown(bank, texts))

    def progress(self, items: Iterable, label: str) -> Iterable:
        """Iterate with a progress bar; silent when the runner shows its own."""
        from tqdm import tqdm

        return tqdm(items, desc=label, leave=False, disable=bool(os.environ.get("MANGALAB_FRAGMENT")))

    def card(self) -> None:
        """Show the run card and mark the record complete. Must be the last call of a chapter."""
        self.fragment.complete = True
        self._flush()
        f = self.fragment
        when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        rows = [
            ("profile", f"{f.profile}" + ("" if self.profile.publishable else " (not publishable)")),
            ("run", f"{when}, {time.perf_counter() - self.started:.0f} s of this kernel"),
            ("device, precision", f"{f.device}, {self.profile.dtype_reason}"),
            ("seeds", ", ".join(map(str, f.seeds))),
            ("parameters", ", ".join(f"{k}={v}" for k, v in f.parameters.items()) or "none"),
            ("recorded", f"{len(f.values)} values, {len(f.comparisons)} comparisons, "
                         f"{len(f.claims)} claims, {len(f.decisions)} decisions"),
            ("versions", ", ".join(f"{k} {v}" for k, v in f.versions.items())),
        ]
        body = "\n".join(f"| {name} | {text} |" for name, text in rows)
        _markdown(f"| run card | |\n|---|---|\n{body}")

    def _flush(self) -> None:
        self.fragment.write()


def _difference(a, b):
    """Interval of a - b and the number of seeds, by the shape of the inputs."""
    import numpy as np

    from .evaluation import intervals

    x, y = np.asarray(a, float), np.asarray(b, float)
    if x.shape != y.shape or x.ndim not in (1, 2):
        raise ValueError(f"compare: shapes {x.shape} and {y.shape}; need equal (seeds,) or (seeds, n)")
    if x.ndim == 1:
        return intervals.seed_difference(x, y), len(x)
    if len(x) == 1:
        return intervals.paired_bootstrap(x[0], y[0]), 1
    return intervals.bootstrap_over_runs(x, y), len(x)


def _judge_entry(entry: dict, measured, low, high, holds) -> str:
    if isinstance(holds, str):
        if holds not in claims.VERDICTS:
            raise claims.ClaimError(f"holds={holds!r}: pass True, False or one of {claims.VERDICTS}")
        return holds
    if holds is not None:
        return "held" if holds else "refuted"
    if measured is None:
        return "beyond this run"
    try:
        claimed = float(entry["claimed"])
    except (TypeError, ValueError):
        raise claims.ClaimError(
            f"claim {entry['id']!r} is in words ({entry['claimed']!r}): pass holds=True or False"
        ) from None
    direction, tolerance = entry.get("direction", "equal"), float(entry.get("tolerance") or 0)
    return claims.judge(claimed, float(measured), low, high, direction, tolerance)


def _measured(found: dict) -> str:
    text = _cell(found["measured"]) if found["measured"] is not None else found["note"] or "–"
    if found["low"] is not None:
        text += f" [{_cell(found['low'])}, {_cell(found['high'])}]"
    if found["n"]:
        text += f", n = {found['n']}"
    return text + (f". {found['note']}" if found["note"] and found["measured"] is not None else "")


def _cell(value: object) -> str:
    if value is None:
        return "–"
    value = plain(value) if not isinstance(value, str) and not hasattr(value, "low") else value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def _markdown(text: str) -> None:
    from IPython.display import Markdown, display

    display(Markdown(text))


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        from . import __version__

        return __version__ if name == "mangalab" else "absent"


def _silence() -> None:
    """Drop warnings of libraries that tell a reader nothing and cannot be acted on."""
    import logging
    import warnings

    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="IProgress not found")
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")


def _seed_everything(seed: int) -> None:
    import random

    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
