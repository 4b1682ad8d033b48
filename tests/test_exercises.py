"""Each exercise passes a right answer and fails the mistake it is there for, with a hint."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mangalab.book.cli import app
from mangalab.exercises import catalogue, grade

ROOT = Path(__file__).parents[1]

RIGHT = {
    1: """
def report(truth, predicted, classes):
    if len(truth) != len(predicted):
        raise ValueError("lengths differ")
    recalls, f1s = [], []
    for c in classes:
        hit = sum(t == p == c for t, p in zip(truth, predicted))
        n, said = truth.count(c), predicted.count(c)
        recalls.append(hit / n if n else 0.0)
        f1s.append(2 * hit / (n + said) if n + said else 0.0)
    right = sum(t == p for t, p in zip(truth, predicted))
    k = len(classes)
    return {"accuracy": right / len(truth), "macro_recall": sum(recalls) / k, "macro_f1": sum(f1s) / k}
""",
    2: """
def lora(weight, a, b, alpha):
    return {"parameters": a.size + b.size, "merged": weight + alpha / len(a) * (b @ a)}
""",
    3: """
def gigabytes(parameters, block=64, double_quant=True, second_block=256):
    scale = 8 / block + 32 / block / second_block if double_quant else 32 / block
    return parameters * (4 + scale) / 8e9
""",
    4: """
import unicodedata
def key(text):
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())
def deduplicated(rows):
    seen, kept = set(), []
    for row in rows:
        k = key(row["input"]), key(row["output"])
        if k not in seen:
            seen.add(k)
            kept.append(row)
    return kept
""",
    5: """
from statistics import mean
def choose(runs):
    names = list(dict.fromkeys(r["setting"] for r in runs))
    of = lambda n, key: mean(r[key] for r in runs if r["setting"] == n)
    best = max(names, key=lambda n: of(n, "validation"))
    at = {n: (of(n, "validation"), -of(n, "seconds")) for n in names}
    worse = lambda n, m: at[m] != at[n] and at[m][0] >= at[n][0] and at[m][1] >= at[n][1]
    beaten = lambda n: any(worse(n, m) for m in names)
    front = sorted((n for n in names if not beaten(n)), key=lambda n: -at[n][1])
    return {"setting": best, "test": of(best, "test"), "front": front}
""",
    6: """
import numpy as np
def dpo_loss(pc, pr, rc, rr, beta):
    return float(np.logaddexp(0, -beta * ((pc - rc) - (pr - rr))).mean())
""",
    7: """
def route(request, adapters, longest):
    if not isinstance(request, dict):
        return 422, "no object"
    text, name = request.get("text"), request.get("adapter")
    if not isinstance(text, str) or not text or not isinstance(name, str):
        return 422, "text and adapter must be strings"
    if name not in adapters:
        return 404, f"no adapter {name}; there are {', '.join(adapters)}"
    if len(text) > longest:
        return 413, f"{len(text)} characters, at most {longest}"
    return 200, name
""",
    8: """
from statistics import mean, stdev
def gate(champion, candidate, floor, margin):
    if len(champion) != len(candidate):
        raise ValueError("lengths differ")
    if mean(candidate) < floor:
        return False, "below the floor"
    d = [b - a for a, b in zip(champion, candidate)]
    low = mean(d) - 1.959964 * stdev(d) / len(d) ** 0.5
    return (True, "passes") if low >= -margin else (False, "not shown as good as the champion")
""",
}

WRONG = {  # number: (what to replace in the right answer, by what, a word of the hint)
    1: ("k = len(classes)", "k = len(set(truth))", "every class"),
    2: ("alpha / len(a)", "alpha", "alpha / r"),
    3: ("* (4 + scale)", "* 4", "without their scales"),
    4: ('k = key(row["input"]), key(row["output"])', 'k = key(row["input"])', "disagree"),
    5: ('of(n, "validation"))', 'of(n, "test"))', "not the test score"),
    6: ("np.logaddexp(0, -beta * ((pc - rc) - (pr - rr)))",
        "np.log(1 + np.exp(-beta * ((pc - rc) - (pr - rr))))", "logaddexp"),
    7: ('; there are {\', \'.join(adapters)}', "", "all that are there"),
    8: ("if mean(candidate) < floor:", "if False:", "creeps"),
}  # fmt: skip


@pytest.fixture
def answer(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "answer.py"
        path.write_text(text, encoding="utf8")
        return path

    return write


@pytest.mark.parametrize("number", RIGHT)
def test_right_answer_passes(number, answer):
    found = grade.grade(number, answer(RIGHT[number]))
    assert len(found) >= 3
    assert [finding.asked for finding in found if not finding.ok] == []


@pytest.mark.parametrize("number", WRONG)
def test_plausible_mistake_fails_with_a_hint(number, answer):
    old, new, word = WRONG[number]
    assert old in RIGHT[number]
    missed = [f for f in grade.grade(number, answer(RIGHT[number].replace(old, new))) if not f.ok]
    assert missed and any(word in finding.hint for finding in missed)


@pytest.mark.parametrize("number", RIGHT)
def test_template_is_no_answer(number, answer):
    one = catalogue.exercise(number)
    assert f"def {one.function}(" in one.template and f"Exercise {number}:" in one.template
    with pytest.raises(grade.AnswerError, match="NotImplementedError"):
        grade.grade(number, answer(one.template))


def test_a_readers_exception_shows_their_line_and_nothing_of_ours(answer):
    with pytest.raises(grade.AnswerError) as found:
        grade.grade(3, answer("def gigabytes(*given):\n    return 1 / 0\n"))
    assert "answer.py, line 2: return 1 / 0" in str(found.value) and "checks.py" not in str(found.value)


def test_an_answer_without_end_is_ended(answer):
    with pytest.raises(grade.AnswerError, match="did not end within 2 s"):
        grade.grade(3, answer("def gigabytes(*given):\n    while True:\n        pass\n"), seconds=2)


def test_command_writes_checks_and_never_overwrites(tmp_path):
    path, run = tmp_path / "mine.py", CliRunner().invoke
    listed = run(app, ["exercise"])
    assert listed.exit_code == 0 and all(one.title in listed.output for one in catalogue.EXERCISES)
    assert run(app, ["exercise", "4", "--file", str(path)]).exit_code == 0
    path.write_text(RIGHT[4], encoding="utf8")
    again = subprocess.run(
        [sys.executable, "-m", "mangalab.book.cli", "exercise", "4", "--file", str(path)],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert (
        again.returncode == 2
        and "is there already" in again.stderr
        and path.read_text("utf8") == RIGHT[4]
    )
    checked = run(app, ["exercise", "4", "--file", str(path), "--check"])
    assert checked.exit_code == 0 and "6 of 6 right" in checked.output
    path.write_text(RIGHT[4].replace(".lower()", ""), encoding="utf8")
    checked = run(app, ["exercise", "4", "--file", str(path), "--check"])
    assert checked.exit_code == 1 and "WRONG" in checked.output


def test_unknown_number_names_the_range():
    found = subprocess.run(
        [sys.executable, "-m", "mangalab.book.cli", "exercise", "9"],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert found.returncode == 2 and "1 to 8" in found.stderr


def test_every_exercise_has_its_page_and_every_page_is_in_the_contents():
    contents = (ROOT / "_toc.yml").read_text(encoding="utf8")
    assert "book/projects/index" in contents and "glob: book/projects/[0-9]*" in contents
    index = (ROOT / "book" / "projects" / "index.md").read_text(encoding="utf8")
    for one in catalogue.EXERCISES:
        page = (ROOT / f"{one.page}.md").read_text(encoding="utf8")
        assert f"mangalab exercise {one.number} --check" in page
        assert f"({Path(one.page).name}.md)" in index
