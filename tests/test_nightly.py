"""The nightly workflows: their own shell steps, run against a `gh` that notes what it is asked."""

import datetime as dt
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_accept import book, passed  # noqa: F401  (a fixture)

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = ROOT / ".github" / "workflows"
REPORT, SILENT = "Nightly run needs attention (cpu)", "Nightly run is silent"
STUB = f"""#!{sys.executable}
import json, os, sys
from pathlib import Path
here, arguments = Path(__file__).parent, sys.argv[1:]
text = sys.stdin.read() if "-" in arguments else ""
with open(here / "calls.jsonl", "a", encoding="utf8") as file:
    file.write(json.dumps([arguments, text]) + "\\n")
answers = json.loads((here / "answers.json").read_text(encoding="utf8"))
if arguments[:2] == ["issue", "list"]:
    print(json.dumps(answers["issues"]))
elif arguments[:2] == ["run", "list"]:
    print(json.dumps(answers["good" if "success" in arguments else "all"]))
sys.exit(answers.get("code", 0))
"""


def workflow(name: str) -> dict:
    """A workflow as data (YAML 1.1 reads the key `on` as true)."""
    found = yaml.safe_load((WORKFLOWS / f"{name}.yml").read_text(encoding="utf8"))
    return found | {"on": found.pop(True)}


def step(name: str, job: str, words: str) -> dict:
    """The step of a job whose name holds `words`."""
    return next(s for s in workflow(name)["jobs"][job]["steps"] if words in s.get("name", ""))


class Forge:
    """A working directory as a runner has it, with a stub `gh` first on the path."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir(parents=True)
        (folder / "tools").symlink_to(ROOT / "tools")
        (self.bin / "gh").write_text(STUB, encoding="utf8")
        (self.bin / "gh").chmod(0o755)
        self.answer(issues=[], good=[], all=[])

    def answer(self, **answers) -> None:
        (self.bin / "answers.json").write_text(json.dumps(answers), encoding="utf8")

    def run(self, script: str, **variables: str) -> subprocess.CompletedProcess:
        """Run a step's script as GitHub does, and forget earlier calls of gh."""
        (self.bin / "calls.jsonl").write_text("", encoding="utf8")
        path = f"{self.bin}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(["bash", "-e", "-c", script], cwd=self.folder, capture_output=True,
                              text=True, env={**os.environ, "PATH": path, **variables})  # fmt: skip

    def report(self, outcome: str) -> subprocess.CompletedProcess:
        """The step that keeps the issue."""
        script = step("nightly", "report", "issue")["run"]
        return self.run(script, PROFILE="cpu", OUTCOME=outcome, RUN_URL="https://x/1", GH_TOKEN="t")

    @property
    def calls(self) -> list[list]:
        """What gh was asked, with the text on its input."""
        lines = (self.bin / "calls.jsonl").read_text(encoding="utf8").splitlines()
        return [json.loads(line) for line in lines]

    @property
    def verbs(self) -> list[str]:
        """The calls without their options."""
        return [" ".join(arguments[:3] if arguments[2].isdigit() else arguments[:2])
                for arguments, _ in self.calls]  # fmt: skip


@pytest.fixture
def forge(tmp_path):
    return Forge(tmp_path / "forge")


OPEN = [{"number": 7, "title": REPORT}, {"number": 9, "title": "Nightly run needs attention (gpu)"}]


def test_red_opens_one_issue_then_rewrites_it_then_green_closes_it(forge):
    body = forge.folder / "nightly" / "drift.md"
    body.parent.mkdir()
    body.write_text("`recall` moved\n", encoding="utf8")
    assert forge.report("failure").returncode == 0
    assert forge.verbs == ["issue list", "label create", "issue create"]
    arguments, text = forge.calls[-1]
    assert arguments[arguments.index("--title") + 1] == REPORT and "nightly" in arguments
    assert "`recall` moved" in text and "**failure**" in text and "https://x/1" in text
    forge.answer(issues=OPEN)
    forge.report("failure")
    assert forge.verbs == ["issue list", "issue edit 7"]
    forge.report("success")
    assert forge.verbs == ["issue list", "issue close 7"]
    forge.answer(issues=[])
    forge.report("success")
    assert forge.verbs == ["issue list"]


def test_duplicates_are_folded_into_the_oldest(forge):
    forge.answer(issues=[{"number": 12, "title": REPORT}, *OPEN])
    forge.report("cancelled")
    assert forge.verbs == ["issue list", "issue edit 7", "issue close 12"]


def test_a_run_that_died_before_the_diff_is_reported(forge):
    assert forge.report("failure").returncode == 0
    assert "ended before it could be compared" in forge.calls[-1][1]


def test_a_gh_that_fails_fails_the_step(forge):
    forge.answer(issues=[], code=1)
    done = forge.report("failure")
    assert done.returncode != 0 and "gh issue list failed" in done.stderr


def test_planted_drift_goes_from_the_records_into_the_issue(forge, book):  # noqa: F811
    from test_accept import call

    for name in ("05-x", "06-y"):
        passed(book, name)
    call("accept")
    far = {"value": 0.1, "low": 0.05, "high": 0.15, "n": 100}
    passed(book, "05-x", key="k2", values={"recall": far})
    script = step("nightly", "run", "compare")["run"]
    command = forge.folder / ".venv" / "bin" / "mangalab"
    command.parent.mkdir(parents=True)
    line = f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m mangalab.book.cli "$@"\n'
    command.write_text(line, encoding="utf8")
    command.chmod(0o755)
    done = forge.run(script, PROFILE="cpu")
    assert done.returncode == 1, done.stderr
    assert json.loads((forge.folder / "artifacts/drift.json").read_text())["counts"]["drift"] == 1
    (forge.folder / "artifacts").rename(forge.folder / "nightly")  # up and down as an artifact
    forge.report("failure")
    assert "| 05-x | `recall` | `0.5 -> 0.1` |" in forge.calls[-1][1]
    passed(book, "05-x")
    assert forge.run(script, PROFILE="cpu").returncode == 0


def ago(days: float) -> dict:
    when = dt.datetime.now(dt.UTC) - dt.timedelta(days=days)
    stamp = when.isoformat(timespec="seconds").replace("+00:00", "Z")
    return {"createdAt": stamp, "url": "https://x/9", "conclusion": "failure"}


@pytest.mark.parametrize(
    ("good", "last", "verb", "words"),
    [
        ([ago(0.4)], [ago(0.4)], "issue list", ""),
        ([ago(3)], [ago(0.4)], "issue create", "3.0 days old: https://x/9 (limit: 2 days)"),
        ([], [ago(0.4)], "issue create", "is not there"),
        ([], [], "issue create", "No scheduled run is known"),
    ],
)
def test_watchdog_hears_silence(forge, good, last, verb, words):
    forge.answer(issues=[], good=good, all=last)
    script = step("watchdog", "look", "age")["run"]
    assert forge.run(script, GH_TOKEN="t").returncode == 0
    assert forge.verbs[-1] == verb and words in forge.calls[-1][1]
    if good and verb == "issue list":
        forge.answer(issues=[{"number": 5, "title": SILENT}], good=good, all=last)
        forge.run(script, GH_TOKEN="t")
        assert forge.verbs[-1] == "issue close 5"


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*.yml")), ids=lambda path: path.stem)
def test_workflows_are_safe(path):
    found = workflow(path.stem)
    assert found["permissions"].get("contents") == "read"
    for name, job in found["jobs"].items():
        assert job["timeout-minutes"] <= 120, name
        for each in job["steps"]:
            assert "${{" not in each.get("run", ""), f"{path.name}: expand in env, not in the shell"
            assert re.fullmatch(r"actions/[\w-]+@v\d+", each.get("uses", "actions/checkout@v4"))


def test_only_the_jobs_that_write_issues_may():
    nightly = workflow("nightly")
    assert nightly["permissions"] == {"contents": "read"}
    assert "permissions" not in nightly["jobs"]["run"]
    assert nightly["jobs"]["report"]["permissions"] == {"contents": "read", "issues": "write"}
    assert nightly["jobs"]["report"]["if"] == "always()"
    for words in ("compare",):
        assert step("nightly", "run", words)["if"] == "always()"
    assert workflow("watchdog")["permissions"] == {
        "contents": "read", "actions": "read", "issues": "write"}  # fmt: skip
