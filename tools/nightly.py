"""Keeps one GitHub issue a kind of trouble: opened or rewritten when red, closed when green again.

python tools/nightly.py report --profile cpu --outcome failure --url URL --body nightly/drift.md
python tools/nightly.py watchdog --days 2

Needs only the standard library and `gh` (GH_TOKEN, GH_REPO). Issues are found by label and title.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import subprocess
import sys
from pathlib import Path

LABEL = "nightly"
REPORT = "Nightly run needs attention ({})"
SILENT = "Nightly run is silent"
LIMIT = 65_000  # characters of an issue; GitHub takes 65 536


def gh(*arguments: str, text: str | None = None) -> str:
    """Run `gh`; a failure ends this program with what gh said."""
    done = subprocess.run(["gh", *arguments], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"gh {' '.join(arguments[:2])} failed: {done.stderr.strip()}")
    return done.stdout


def found(title: str) -> list[int]:
    """Numbers of the open issues of this label and exactly this title, oldest first."""
    query = ("--label", LABEL, "--state", "open", "--limit", "200", "--json", "number,title")
    issues = json.loads(gh("issue", "list", *query))
    return sorted(issue["number"] for issue in issues if issue["title"] == title)


def red(title: str, body: str) -> str:
    """See to it that exactly one open issue says `body`."""
    numbers = found(title)
    if not numbers:
        gh("label", "create", LABEL, "--force", "--color", "B60205",
           "--description", "opened and closed by the nightly workflows")  # fmt: skip
        gh("issue", "create", "--title", title, "--label", LABEL, "--body-file", "-", text=body)
        return f"opened: {title}"
    first, *others = map(str, numbers)
    gh("issue", "edit", first, "--body-file", "-", text=body)
    for number in others:
        gh("issue", "close", number, "--comment", f"Goes on in #{first}.")
    return f"rewrote #{first}: {title}"


def green(title: str, words: str) -> str:
    """Close what is open under this title."""
    numbers = found(title)
    for number in numbers:
        gh("issue", "close", str(number), "--comment", words)
    return f"closed {len(numbers)}: {title}" if numbers else f"nothing to do: {title}"


def report(profile: str, outcome: str, url: str, body: Path) -> str:
    """What became of a nightly run: `outcome` is the job's result, `body` the report of the diff."""
    title = REPORT.format(profile)
    if outcome == "success":
        return green(title, f"Green again: {url}")
    text = body.read_text(encoding="utf8").strip() if body.is_file() else ""
    text = text or "The run ended before it could be compared; its log says where."
    head = f"The nightly run of profile `{profile}` ended with **{outcome}** on {today()}: {url}\n\n"
    tail = "\n\nThis text is rewritten by every red run; the issue is closed by the next green one.\n"
    return red(title, head + text[: LIMIT - len(head) - len(tail)] + tail)


def watchdog(days: float) -> str:
    """Whether the last successful scheduled run is younger than `days`."""
    query = ("--workflow", "nightly.yml", "--event", "schedule", "--limit", "1")
    fields = ("--json", "createdAt,url,conclusion")
    good = json.loads(gh("run", "list", *query, "--status", "success", *fields))
    if good and age(good[0]["createdAt"]) <= days:
        return green(SILENT, f"Good again: {good[0]['url']}")
    last = json.loads(gh("run", "list", *query, *fields))
    since = f"{age(good[0]['createdAt']):.1f} days old: {good[0]['url']}" if good else "not there"
    words = f"The last successful scheduled run is {since} (limit: {days:g} days).\n\n"
    if last:
        state = last[0]["conclusion"] or "not finished"
        old = age(last[0]["createdAt"])
        words += f"The last one of all is {old:.1f} days old: {state}, {last[0]['url']}\n"
    else:
        words += "No scheduled run is known: is the workflow enabled?\n"
    return red(SILENT, words)


def age(created: str) -> float:
    """Days since an ISO 8601 time."""
    return (dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(created)).total_seconds() / 86400


def today() -> str:
    """The date in UTC."""
    return dt.datetime.now(dt.UTC).date().isoformat()


def main() -> None:
    """Read the command line and say what was done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("report")
    one.add_argument("--profile", choices=("cpu", "gpu"), required=True)
    one.add_argument("--outcome", choices=("success", "failure", "cancelled", "skipped"), required=True)
    one.add_argument("--url", required=True)
    one.add_argument("--body", type=Path, required=True)
    two = commands.add_parser("watchdog")
    two.add_argument("--days", type=float, required=True)
    given = vars(parser.parse_args())
    print({"report": report, "watchdog": watchdog}[given.pop("command")](**given))


if __name__ == "__main__":
    main()
