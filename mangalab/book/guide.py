"""The decision guide: questions and rules of `book/guide.yml`, checked, and which rules apply."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .project import BookError, read_yaml

FILE = "book/guide.yml"
Rule = dict[str, Any]
FIELDS = {"id", "do", "when", "chapter", "because", "not_yet"}


def load(root: Path) -> dict[str, Any]:
    """Questions and rules; BookError names the first rule that asks what no question answers."""
    found = read_yaml(Path(root) / FILE)
    known = {q["id"]: set(q["answers"]) for q in found["questions"]}
    seen: set[str] = set()
    for rule in found["rules"]:
        name = rule.get("id", "without id")
        if set(rule) != FIELDS or name in seen:
            raise BookError(f"{FILE}: rule {name} must have {', '.join(sorted(FIELDS))}, and only once")
        seen.add(name)
        for question, answers in rule["when"].items():
            if unknown := set(answers) - known.get(question, set()):
                raise BookError(f"{FILE}: rule {name} asks for {question} = {sorted(unknown)}")
    for case in found.get("cases", []):
        for question, answer in case["given"].items():
            if answer not in known.get(question, set()):
                raise BookError(f"{FILE}: case {case['case']} answers {question} with {answer!r}")
    return found


def applies(rule: Rule, given: Mapping[str, str]) -> bool:
    """Whether nothing in ``given`` (question: answer) contradicts the rule."""
    return all(given.get(question, answers[0]) in answers for question, answers in rule["when"].items())


def chosen(rules: Iterable[Rule], given: Mapping[str, str]) -> list[str]:
    """Ids of the rules that apply, in the order of the ladder."""
    return [rule["id"] for rule in rules if applies(rule, given)]


def condition(rule: Rule, questions: Iterable[Mapping]) -> str:
    """The rule's `when` in words."""
    said = []
    for question in questions:
        if wanted := rule["when"].get(question["id"]):
            words = " or ".join(question["answers"][answer] for answer in wanted)
            said.append(f"{question['ask'].rstrip('?')}: {words}")
    return "; ".join(said)
