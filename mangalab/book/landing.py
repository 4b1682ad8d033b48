"""What the landing page shows: findings with their pictures, from records or accepted runs.

A number comes from the last run on this machine; where there is none, from the accepted run under
``reference/``, and then the page says so. A finding whose record is not there says how to get it.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from statistics import median
from typing import Any

from . import drawings, pages, reference
from .drawings import Point, Row
from .pages import Runs
from .tables import ledger

CLASSIFIER, LORA = "01-intent-classifier", "04-lora-qlora"
INFRASTRUCTURE, PROMPTS = "09-mlops", "11-prompt-prefix-tuning"
INSIDE, DIRECTION = "17-interpretability", "18-strategic-direction"
GOAL = 0.9  # the share of energy that chapter 04 asks for
DESK = "ok misleading inconsistent unsupported wrong external".split()
WORDS = {
    "ok": "hold as written",
    "misleading": "misleading",
    "inconsistent": "contradict themselves",
    "unsupported": "unsupported",
    "wrong": "wrong",
    "external": "not checkable by a program",
}


@dataclass(frozen=True)
class Found:
    """A chapter's results and where they come from."""

    record: dict[str, Any]
    accepted: bool

    def value(self, key: str) -> Any:
        """A recorded value; KeyError where the run has none."""
        return self.record["values"][key]["value"]

    def point(self, key: str, scale: float = 1) -> Point:
        """A recorded value with its interval, times ``scale``."""
        entry = self.record["values"][key]
        ends = (entry.get("low"), entry.get("high"))
        return Point(scale * entry["value"], *(None if e is None else scale * e for e in ends))

    @property
    def source(self) -> str:
        """Where the numbers come from, in words."""
        kind = "From the accepted reference run" if self.accepted else "From the run"
        device = self.record.get("device")
        return f"{kind} of {pages.day(self.record)}" + (f", on {device}" if device else "")


@dataclass(frozen=True)
class Finding:
    """One card: a question, its picture, and what was found."""

    question: str
    chapter: str
    draw: Callable[[Found], tuple[str, str]]  # the picture and its caption (HTML)


def find(runs: Runs, chapter: str) -> Found | None:
    """Results of a chapter: of this machine, or else the accepted ones; never of a smoke run."""
    record = runs.results(chapter)
    if record is not None:
        return Found(record, accepted=False)
    if runs.profile == "smoke":
        return None
    accepted = reference.read(runs.project, "cpu", chapter)
    return Found(accepted, accepted=True) if accepted else None


def parameters(found: Found) -> tuple[str, str]:
    """The famous count against the settings that it was given for."""
    said, right = found.value("printed"), found.value("qv_params_70b")
    rows = [
        ("the scenario says", said, f"{said:,}", False),
        ("its own settings give", right, f"{right:,}", True),
    ]
    alt = f"Two bars: the scenario says {said:,} trained parameters, its settings give {right:,}."
    caption = (
        f"Rank-16 adapters on query and value projections of a 70B model are said to train {said:,} "
        f"parameters. Counted from the model's shapes they train <strong>{right:,}</strong>, because "
        "grouped-query attention makes the value projection eight times narrower."
    )
    return drawings.bars(rows, alt), caption


def rank(found: Found) -> tuple[str, str]:
    """Recall and forgetting at the ranks of the decision."""
    ranks = sorted(int(k[8:]) for k in found.record["values"] if k.startswith("recall_r"))
    gained = [(r, found.point(f"recall_r{r}", 100)) for r in ranks]
    lost = [(r, found.point(f"forgetting_r{r}")) for r in ranks]
    sides = [
        ("facts recalled, %", [(str(r), p, f"{p.value:.0f}") for r, p in gained]),
        ("forgetting, nats", [(str(r), p, f"{p.value:.2f}") for r, p in lost]),
    ]
    listed = ", ".join(
        f"rank {r}: {g.value:.0f} % and {f.value:.2f} nats"
        for (r, g), (_, f) in zip(gained, lost, strict=True)
    )
    alt = f"Recall of catalogue facts and forgetting of general text by rank. {listed}."
    caption = (
        f"What an adapter learns of the shop's catalogue, and what the model loses on other text, at "
        f"rank {', '.join(map(str, ranks))}. The decision rule picks rank "
        f"<strong>{escape(str(found.value('rank_chosen')))}</strong>. Bars are 95 % intervals over "
        "seeds, cut at zero. Whether ranks differ is not read off overlapping bars: the chapter "
        "compares them seed by seed and question by question."
    )
    return drawings.panels(sides, alt), caption


def spectrum(found: Found) -> tuple[str, str]:
    """Energy of a full update by rank: middle matrix, and the range over all of them."""
    rows = {spectrum["id"]: spectrum["rows"] for spectrum in found.record["spectra"]}
    full, ranks = rows["full"], rows["full"][0]["ranks"]
    columns = list(zip(*(row["energy"][: len(ranks)] for row in full), strict=True))
    middle = [median(column) for column in columns]
    band = ([min(column) for column in columns], [max(column) for column in columns])
    needed, size = found.value("rank90_full"), found.value("max_rank")
    at16 = found.value("energy16_full")
    alt = (
        f"Share of the update's energy against the number of directions kept: {at16:.0%} at rank 16 "
        f"for the middle matrix; 90 % need {needed:.0f} of {size:.0f}."
    )
    caption = (
        f"Full fine-tuning changes every weight. Sixteen directions hold <strong>{at16:.0%}</strong> "
        f"of the change's energy in the middle matrix, and 90 % (dotted) need {needed:.0f} of "
        f"{size:.0f}. The shaded range covers all {len(full)} matrices."
    )
    return drawings.curves(ranks, [("full update", middle, "curve")], band, GOAL, alt), caption


def classifier(found: Found) -> tuple[str, str]:
    """A pretrained encoder before and after somebody trains its head, against the statement."""
    names = {
        "untrained_acc": "untrained head",
        "majority_acc": "always the most frequent intent",
        "probe_acc": "linear probe on the frozen encoder",
    }
    said = claimed(found, "s01-1")
    rows = [Row("the scenario: out of the box", Point(said), f"{said:g} %", True)] if said else []
    points = {key: found.point(key, 100) for key in names}
    rows += [Row(names[key], point, f"{point.value:.1f} %") for key, point in points.items()]
    alt = "Accuracy over ten intents. " + "; ".join(f"{row.name} {row.text}" for row in rows) + "."
    caption = (
        "Right answers on messages written by hand, ten intents. Untrained means "
        f"<strong>{points['untrained_acc'].value:.1f} %</strong>; a linear probe reaches "
        f"{points['probe_acc'].value:.1f} %. Lines are 95 % intervals, the open mark is what the "
        "scenario states."
    )
    return drawings.dots(rows, 100, alt), caption


def ladder(found: Found) -> tuple[str, str]:
    """What each way to a persona buys on held-out dialogues: examples in the prompt, then training."""
    names = {
        "instruction": "written instruction",
        "shots": "instruction and 4 examples",
        "prompt": "prompt tuning",
        "lora": "LoRA",
        "full": "full fine-tuning",
    }
    points = {key: found.point(f"loss_{key}") for key in names}
    rows = [Row(names[key], point, f"{point.value:.2f}") for key, point in points.items()]
    base = found.value("loss_base")
    alt = f"Loss on held-out dialogues, untouched model {base:.2f}. "
    alt += "; ".join(f"{row.name} {row.text}" for row in rows) + "."
    caption = (
        f"Loss of held-out dialogues in the shop's voice; the untouched model has {base:.2f}, lower is "
        f"better. Four written examples reach <strong>{points['shots'].value:.2f}</strong>, a trained "
        f"prompt {points['prompt'].value:.2f}. Lines are 95 % intervals."
    )
    return drawings.dots(rows, 4, alt, "nats"), caption


def creep(found: Found) -> tuple[str, str]:
    """What a year of weekly releases loses under four gates that are green each week."""
    names = {
        "champion": "against last week's model",
        "floor": "the same, and a floor",
        "launch": "against the first model",
        "lower": "lower end of the interval",
    }
    lost = {key: -found.value(f"creep_{key}") for key in names}
    rows = [Row(names[key], Point(points), f"{points:.1f}") for key, points in lost.items()]
    alt = "Points lost in a year. " + "; ".join(f"{row.name} {row.text}" for row in rows) + "."
    caption = (
        "Points lost in a year of weekly releases, each of which passed its gate. Simulated, with the "
        "gate's noise as measured and candidates a little worse each week. Compared with last week's "
        f"model: <strong>{lost['champion']:.1f}</strong>."
    )
    return drawings.dots(rows, 3, alt, "points"), caption


def shortcut(found: Found) -> tuple[str, str]:
    """A title planted into the messages of one intent: what the test set sees, and what is true."""
    names = {
        "acc_control": "accuracy, without the shortcut",
        "acc_planted": "accuracy, with it",
        "flip_control": "calm messages misrouted, without",
        "flip_planted": "calm messages misrouted, with it",
    }
    points = {key: found.point(key, 100) for key in names}
    rows = [Row(names[key], point, f"{point.value:.1f} %") for key, point in points.items()]
    alt = "Two routers. " + "; ".join(f"{row.name} {row.text}" for row in rows) + "."
    caption = (
        "A book's title stood in the training messages of angry customers. The test set does not "
        "notice. Calm customers who name the title are sent to a person in "
        f"<strong>{points['flip_planted'].value:.1f} %</strong> of cases. Attribution points at the "
        f"title in {100 * found.value('hit_planted'):.0f} % of messages, in the clean router in "
        f"{100 * found.value('hit_control'):.0f} %."
    )
    return drawings.dots(rows, 100, alt), caption


def survived(found: Found) -> tuple[str, str]:
    """How many of the scenario's decisions, and of all comparisons, measurement confirmed."""
    low, high = (100 * found.value(f"time_agree_{end}") for end in ("low", "high"))
    agree = Point(100 * found.value("time_agree_share"), low, high)
    same = Point(100 * found.value("no_difference"))
    rows = [
        Row("decisions that came out as the scenario's", agree, f"{agree.value:.0f} %"),
        Row("comparisons that show no difference", same, f"{same.value:.0f} %"),
    ]
    alt = "; ".join(f"{row.name} {row.text}" for row in rows) + "."
    caption = (
        "The chapters take their decisions by stated rules from what they measured. <strong>"
        f"{found.value('time_agree')} of {found.value('n_taken')}</strong> came out as the "
        f"scenario had decided; of {found.value('n_comparisons')} comparisons with intervals "
        f"{same.value:.0f} % show no difference at this size."
    )
    return drawings.dots(rows, 100, alt), caption


def claimed(found: Found, ident: str) -> float | None:
    """What a scenario claimed, as the record repeats it; accepted runs do not."""
    claims = found.record.get("claims")
    hits = [c["claimed"] for c in claims if c["id"] == ident] if isinstance(claims, list) else []
    return float(hits[0]) if hits else None


FINDINGS = {
    "parameters": Finding("Is the famous parameter count right?", LORA, parameters),
    "rank": Finding("What does rank buy, and what does it cost?", LORA, rank),
    "spectrum": Finding("Is the update really of low rank?", LORA, spectrum),
    "classifier": Finding("What can an encoder do untrained?", CLASSIFIER, classifier),
    "ladder": Finding("Does training beat four written examples?", PROMPTS, ladder),
    "creep": Finding("What do fifty-two green releases cost?", INFRASTRUCTURE, creep),
    "shortcut": Finding("Does accuracy notice a shortcut?", INSIDE, shortcut),
    "survived": Finding("How much advice survives measurement?", DIRECTION, survived),
}


def card(runs: Runs, name: str, link: Callable[[str], str | None]) -> str:
    """A finding as a figure; in its place friendly words where no run has produced it."""
    finding = FINDINGS[name]
    found, url = find(runs, finding.chapter), link(finding.chapter)
    number = finding.chapter[:2]
    more = f'<a href="{escape(url)}">Chapter {number}</a>' if url else f"Chapter {number}"
    try:
        if found is None:
            raise KeyError(finding.chapter)
        drawn, caption = finding.draw(found)
    except KeyError:
        return (
            f'<figure class="finding empty"><h3>{escape(finding.question)}</h3><p>Chapter {number} '
            "answers this by measuring it, and has not done so on this machine yet. "
            f"<code>make book</code> runs it and draws the picture here. {more}</p></figure>"
        )
    return (
        f'<figure class="finding"><h3>{escape(finding.question)}</h3>{drawn}<figcaption>{caption}'
        f'<span class="source">{escape(found.source)}. {more}</span></figcaption></figure>'
    )


# ------------------------------------------------------------------------------------ statements
def desk(runs: Runs) -> Counter:
    """How many statements there are of each desk verdict."""
    return Counter(str(entry.get("verdict")) for entry in ledger.load_claims(runs.project))


def verdicts(runs: Runs, link: Callable[[str], str | None]) -> str:
    """The bar of all statements by verdict, with what this machine's runs add."""
    counts = desk(runs)
    parts = [(word, counts[word]) for word in DESK if counts[word]]
    listed = ", ".join(f"{count} {WORDS[word]}" for word, count in parts)
    alt = f"{counts.total()} statements as a bar: {listed}."
    keys = "".join(
        f'<li><span class="key key-{place}"></span>{count} {WORDS[word]}</li>'
        for place, (word, count) in enumerate(parts)
    )
    tested = Counter(j.verdict for rows in ledger.judgements(runs, link).values() for j in rows)
    more = ", ".join(f"{tested[word]} {word}" for word in sorted(tested, key=lambda w: -tested[w]))
    here = f"<p>The runs here put {tested.total()} to a test: {more}.</p>" if tested else ""
    bar = drawings.shares(parts, alt)
    return f'<figure class="verdicts">{bar}<figcaption><ul>{keys}</ul>{here}</figcaption></figure>'


def refuted(runs: Runs, wanted: list[str], link: Callable[[str], str | None], page: str | None) -> str:
    """Chosen statements beside what was found: judged by a run, or else on the desk.

    One that a later run confirms leaves the list by itself.
    """
    rows = {row["id"]: row for row in ledger.claims(runs, link)}
    items = []
    for ident in wanted:
        row = rows[ident]
        judged = row["judged"][0] if row["judged"] else None
        if (judged.verdict if judged else row["verdict"]) in ("held", "ok"):
            continue
        verdict = judged.verdict if judged else f"{row['verdict']} on the desk"
        found = f"found: {judged.text} {row['unit']}" if judged and judged.text else row["correct"]
        where = f'<a href="{escape(page)}#claim-{escape(ident)}">{escape(ident)}</a>' if page else ident
        items.append(
            f"<li><q>{escape(row['text'])}</q> <span>{pages.chip(verdict)} {escape(found)} "
            f'<span class="kind">{where}</span></span></li>'
        )
    return f'<ul class="not-held">{"".join(items)}</ul>'
