"""`mangalab status --times`: sums, kinds of cells, and what is said where no time is known."""

import datetime as dt
import json

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from test_accept import book, call, passed  # noqa: F401

from mangalab.book import times
from mangalab.book.project import BookError

BEGIN = dt.datetime.fromisoformat("2026-11-22T13:00:00+00:00")
CELLS = [  # source, seconds, kinds
    ("import torch\nfrom mangalab.training.distill import train as teach", 1.0, ["imports"]),
    ("model, _ = load_encoder()", 2.0, ["loading"]),
    ("def fit_all(name):\n    return [teach(name, s) for s in range(3)]", 0.0, ["rest"]),
    ("runs = side_by_side(fit_all, ['a'])\nscores = score(runs)", 4.0, ["training", "evaluation"]),
    ("texts = sft.generate(model)", 1.5, ["generation"]),
    ("fig, ax = plt.subplots()\nlab.show(fig)", 0.5, ["figures"]),
    ("x = torch.full((2,), 1.0)", 0.25, ["rest"]),
]


def executed(book, name: str, cells=CELLS, after: float = 1.0) -> None:  # noqa: F811
    """Write an executed notebook of timed cells, the first `after` seconds after the record's start."""
    clock, found = BEGIN + dt.timedelta(seconds=after), [new_markdown_cell("# prose has no time")]
    for source, seconds, _ in cells:
        end = clock + dt.timedelta(seconds=seconds)
        mark = {"duration": seconds, "start_time": clock.isoformat(), "end_time": end.isoformat()}
        found.append(new_code_cell(source, metadata={"papermill": mark}))
        clock = end
    added = {"papermill": {"duration": 99.0}, "tags": ["injected-parameters"]}
    found.insert(2, new_code_cell("alpha = 2", metadata=added))
    path = book.project.executed("cpu", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(new_notebook(cells=found)), encoding="utf8")


def told(*arguments: str) -> dict:
    return json.loads(call("status", "--times", "--json", *arguments).stdout)


# ------------------------------------------------------------------ sums
def test_seconds_of_kinds_add_up_to_the_run(book):  # noqa: F811
    passed(book, "05-x", seconds=12.0)
    executed(book, "05-x")
    found = told("05")
    kinds = found["chapters"][0]["kinds"]
    assert {k: v for k, v in kinds.items() if v} == {
        "training": 4.0, "loading": 2.0, "generation": 1.5, "imports": 1.0, "figures": 0.5,
        "rest": 0.25, "start and end": 2.75}  # fmt: skip
    assert sum(kinds.values()) == pytest.approx(12.0) == found["seconds"]
    assert found["mixed"] == 4.0 == found["chapters"][0]["mixed"]


def test_a_mixed_cell_is_given_to_one_kind_and_named_for_both(book):  # noqa: F811
    passed(book, "05-x", seconds=12.0)
    executed(book, "05-x")
    kinds = told()["kinds"]
    assert kinds["training"] == {"seconds": 4.0, "alone": 0.0, "at_most": 4.0}
    assert kinds["evaluation"] == {"seconds": 0.0, "alone": 0.0, "at_most": 4.0}
    assert kinds["loading"] == {"seconds": 2.0, "alone": 2.0, "at_most": 2.0}


def test_the_book_is_the_sum_of_its_chapters_worst_first(book):  # noqa: F811
    passed(book, "05-x", seconds=12.0)
    passed(book, "06-y", seconds=20.0)
    executed(book, "05-x")
    executed(book, "06-y", [*CELLS, ("answers = speak(model)", 7.0, ["generation"])])
    found = told()
    assert found["seconds"] == 32.0
    assert [run["chapter"] for run in found["chapters"]] == ["06-y", "05-x"]
    assert found["kinds"]["generation"]["seconds"] == 10.0
    assert next(iter(found["kinds"])) == "generation"
    seconds = [cell["seconds"] for cell in found["cells"]]
    assert seconds == sorted(seconds, reverse=True)
    worst = found["cells"][0]
    assert (worst["chapter"], worst["cell"], worst["kinds"]) == ("06-y", 8, ["generation"])


# ------------------------------------------------------------------ kinds of cells
def test_kinds_of_cells():
    sources = [source for source, _, _ in CELLS]
    assert times.kinds_of(sources) == [kinds for _, _, kinds in CELLS]


@pytest.mark.parametrize(
    ("sources", "kinds"),
    [
        (["go = lambda x: sft.train(x)", "go(1)"], ["training"]),
        (["def a(x):\n    b(x)", "def b(x):\n    a(x)\n    predict(x)", "a(1)"], ["evaluation"]),
        (["class Job:\n    def go(self):\n        return learn(self)", "Job()"], ["training"]),
        (["train = 3", "lab.say('train and score')"], ["rest"]),  # words of texts say nothing
        (["def score(x):\n    return sft.generate(x)", "score(1)"], ["generation"]),  # its body decides
        (["from a import predict as fit", "fit(1)"], ["evaluation"]),
        (["torch.load(1)"], ["rest"]),
        (["trainer.fit(x)\nrouter.predict(x)\nlab.show(f)"], ["training", "evaluation", "figures"]),
    ],
)  # fmt: skip
def test_kind_of_the_last_cell(sources, kinds):
    assert times.kinds_of(sources)[-1] == kinds


# ------------------------------------------------------------------ what is not there
def test_no_run_of_the_profile_is_said(book):  # noqa: F811
    with pytest.raises(BookError, match=r"no run of profile gpu.*05-x: never run here.*--profile gpu"):
        call("status", "--times", "--profile", "gpu")


def test_a_chapter_without_times_is_named_not_counted(book):  # noqa: F811
    passed(book, "05-x", seconds=12.0)
    executed(book, "05-x")
    passed(book, "06-y", status="failed", error={"cell": 2})
    found = told()
    assert found["missing"] == {"06-y": "failed at cell 2"} and found["seconds"] == 12.0
    passed(book, "06-y")
    assert "not counted: 06-y: its executed notebook is not there" in call("status", "--times").output
    executed(book, "06-y", [(source, 0.0, kinds) for source, _, kinds in CELLS])
    assert told()["missing"] == {"06-y": "its executed notebook has no times"}


@pytest.mark.parametrize(("after", "longer"), [(3600.0, 0.0), (-3600.0, 0.0), (0.0, 3600.0)])
def test_a_notebook_of_another_run_is_refused(book, after, longer):  # noqa: F811
    passed(book, "05-x", seconds=12.0)
    passed(book, "06-y", seconds=12.0)
    executed(book, "06-y")
    executed(book, "05-x", [*CELLS, ("fit(1)", longer, ["training"])], after=after)
    assert told()["missing"] == {"05-x": "its executed notebook is of another run than its record"}


def test_text_says_how_much_is_mixed(book):  # noqa: F811
    passed(book, "05-x", seconds=12.0)
    executed(book, "05-x")
    text = call("status", "05", "--times").output
    assert "1 run of profile cpu, 12 s" in text and "33% of it in cells that do several kinds" in text
    with pytest.raises(BookError, match="two questions"):
        call("status", "--times", "--max-age", "3")
