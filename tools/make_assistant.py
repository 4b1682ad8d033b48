"""Write mangalab/data/text/assistant_train.tsv: requests from a grammar and logged replies to them.

    python tools/make_assistant.py          # then: python tools/data_checksums.py --write

The replies are those of an imagined log. Some break the house rules, at the rates of `FLAWS`, which
follow the scenario of chapter 10 where it names one. The column `flaw` says which; nothing reads it
but the test of the judge.
"""

import random
import re
import sys
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mangalab.data import assistant, catalogue
from mangalab.data._files import TEXT
from mangalab.data.assistant import Request

ROWS, SEED = 900, 10
KINDS = {"recommend": 42, "info": 20, "spoiler": 13, "human": 13, "support": 9, "chat": 3}
# of all replies where a pair of kinds is not named: tone 12 % and, of those that need a person, 60 %
# without one, which is 8 % of all
FLAWS = {"tone": 0.12, "missing": 0.60, "spoiler": 0.25, "choice": 0.10, "fact": 0.06, "title": 0.03,
         "ramble": 0.04, "needless": 0.03}  # fmt: skip
GRAMMAR = yaml.safe_load((TEXT / "assistant_grammar.yml").read_text(encoding="utf8"))
FIELDS = ("id", "kind", "needs", "about", "text", "reply", "flaw")


def main() -> None:
    draw = random.Random(SEED)
    rows, seen = [], set()
    while len(rows) < ROWS:
        kind = draw.choices(list(KINDS), KINDS.values())[0]
        row = ask(kind, draw) | {"id": f"as-{len(rows) + 1:04}"}
        if row["text"] in seen and kind not in ("chat", "support", "human"):
            continue
        seen.add(row["text"])
        answer(row, kind, draw)
        rows.append("\t".join(row[field] for field in FIELDS))
    text = "\n".join(["\t".join(FIELDS), *rows]) + "\n"
    (TEXT / "assistant_train.tsv").write_bytes(text.encode("utf8"))
    print(f"{len(rows)} rows")


def ask(kind: str, draw: random.Random) -> dict[str, str]:
    """Kind, needs, title asked about and text of a request."""
    row = {"kind": "support" if kind == "human" else kind, "needs": "", "about": ""}
    if kind == "recommend":
        row["needs"], row["text"] = wish(draw)
        return row
    if kind in ("info", "spoiler"):
        row["about"] = draw.choice(catalogue.load()).id
    forms = GRAMMAR[kind]
    if kind == "info":
        row["topic"] = draw.choice(list(forms))
        forms = forms[row["topic"]]
    row["needs"] = "human" if kind == "human" else ""
    title = catalogue.by_id(row["about"]).title if row["about"] else ""
    row["text"] = fill(draw.choice(forms), draw, title=title)
    return row


def wish(draw: random.Random) -> tuple[str, str]:
    """Needs and words of a request for a recommendation that at least three titles meet."""
    while True:
        genre = draw.choice(list(GRAMMAR["genre_words"]))
        parts, limits = [f"genre={genre}"], []
        if draw.random() < 0.5:
            parts.append("finished")
            limits.append(draw.choice([", finished", ", completed", " that is complete"]))
        if draw.random() < 0.5:
            age = draw.choice(list(GRAMMAR["age_words"]))
            parts.append(f"max_age={age}")
            limits.append(", " + draw.choice(GRAMMAR["age_words"][age]))
        if draw.random() < 0.25:
            volumes = draw.choice([5, 10, 15])
            parts.append(f"max_volumes={volumes}")
            limits.append(f", at most {volumes} volumes")
        tail = draw.choice(GRAMMAR["brief"]) if draw.random() < 0.15 else ""
        needs = ";".join(parts + ["max_words=20"] * bool(tail))
        if sum(assistant.parse_needs(needs).fits(t) for t in catalogue.load()) >= 3:
            words = draw.choice(GRAMMAR["genre_words"][genre])
            text = fill(draw.choice(GRAMMAR["recommend"]), draw, genre=words, limits="".join(limits))
            return needs, text + tail


def answer(row: dict[str, str], kind: str, draw: random.Random) -> None:
    """Add the reply of the log and its flaw, if any."""
    request = assistant.request(row)
    topic = row.pop("topic", "brief" if request.needs.max_words == 20 else kind)
    title, flaw = chosen(request, draw)
    if kind == "human" and draw.random() < FLAWS["missing"]:
        row["reply"], row["flaw"] = draw.choice(GRAMMAR["flaws"]["missing"]), "missing"
    elif kind == "spoiler" and draw.random() < FLAWS["spoiler"]:
        form = draw.choice(GRAMMAR["flaws"]["spoiler"])
        row["reply"], row["flaw"] = said(form, title, draw), "spoiler"
    else:
        row["reply"], row["flaw"] = said(draw.choice(GRAMMAR["good"][topic]), title, draw), flaw
    for name in ("fact", "title"):
        if title and draw.random() < FLAWS[name] and not row["flaw"]:
            reply = spoilt(name, row["reply"], title, draw)
            if reply != row["reply"]:
                row["reply"], row["flaw"] = reply, name
    for name in ("tone", "ramble", "needless"):
        fitting = not row["flaw"] and not (name == "needless" and kind == "human")
        if draw.random() < FLAWS[name] and fitting:
            form = draw.choice(GRAMMAR["flaws"][name]).strip()
            row["reply"] = form.replace("{reply}", row["reply"]).replace(".!!", "!!")
            row["flaw"] = name


def chosen(request: Request, draw: random.Random) -> tuple[catalogue.Title | None, str]:
    """The title that the reply is about; sometimes a wrong one from the shelf."""
    if request.kind != "recommend":
        return request.about, ""
    right = [t for t in request.shelf if request.needs.fits(t)]
    wrong = [t for t in request.shelf if t not in right]
    if wrong and draw.random() < FLAWS["choice"]:
        return draw.choice(wrong), "choice"
    return draw.choice(right), ""


def spoilt(name: str, reply: str, title: catalogue.Title, draw: random.Random) -> str:
    """The reply with another author or an invented title."""
    if name == "title":
        return reply.replace(title.title, draw.choice(GRAMMAR["invented"]))
    return reply.replace(title.author, draw.choice(catalogue.load()).author)


def said(form: str, title: catalogue.Title | None, draw: random.Random) -> str:
    """A reply form filled with a title's facts."""
    if title is None:
        return fill(form, draw)
    state = assistant.state(title)
    return fill(form, draw, title=title.title, author=title.author, state=state,
                rating=title.age_rating, genres=" and ".join(title.genres[:2]).lower())  # fmt: skip


def fill(form: str, draw: random.Random, **given: str) -> str:
    """Every {name} of the form replaced by what is given or by a draw from the grammar's list."""
    for name in re.findall(r"\{(\w+)\}", form):
        if name == "order":
            value = str(draw.randint(10000, 99999))
        else:
            value = given[name] if name in given else draw.choice(GRAMMAR[name])
        form = form.replace(f"{{{name}}}", value, 1)
    return form


if __name__ == "__main__":
    main()
