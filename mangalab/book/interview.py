"""Question banks of the interview part: loaded, checked, and shown with measured values."""

import re
from pathlib import Path

LEVELS = ("Fresh", "Intermediate", "Advanced", "Expert")
REQUIRED = ("id", "level", "minutes", "question", "answer", "key_insight", "mistake")
# {base_recall} and {churn}, but not the groups of a formula such as \\frac{a_i}{b_i} or x_{t_0}
PLACEHOLDER = re.compile(r"(?<![\w^_}\\])\{([a-z][a-z0-9]+(?:_[a-z0-9]+)*|[a-z](?:_[a-z0-9]+)+)\}")
MISTAKE = {"what": "The mistake", "tempting": "Why it tempts", "cost": "What it costs"}


class BankError(ValueError):
    """A question bank that is incomplete or quotes a value that no run recorded."""


def load_bank(path: Path) -> list[dict]:
    """Questions of one chapter, ordered by level; every required field is present."""
    import yaml

    if not path.exists():
        raise BankError(f"no question bank at {path}: write it (schema: {', '.join(REQUIRED)})")
    bank = yaml.safe_load(path.read_text(encoding="utf8"))
    for entry in bank:
        lacks = [key for key in REQUIRED if not entry.get(key)]
        lacks += [f"mistake.{key}" for key in MISTAKE if not (entry.get("mistake") or {}).get(key)]
        if lacks or entry["level"] not in LEVELS:
            raise BankError(f"{path.name}, question {entry.get('id')!r}: lacks {lacks} or bad level")
    return sorted(bank, key=lambda entry: LEVELS.index(entry["level"]))


def bind(text: str, values: dict[str, str], where: str) -> str:
    """Fill ``{key}`` placeholders with recorded texts; an unknown key is an error."""
    if missing := sorted(set(PLACEHOLDER.findall(text)) - set(values)):
        raise BankError(f"question {where!r} quotes {missing}, which this run did not record")
    return PLACEHOLDER.sub(lambda match: values[match[1]], text)


def to_markdown(bank: list[dict], values: dict[str, str]) -> str:
    """The drill as Markdown: questions by level, each answer folded."""
    parts, level = [], None
    for entry in bank:
        if entry["level"] != level:
            level = entry["level"]
            parts.append(f"**{level}**")
        parts.append(_question(entry, values))
    return "\n\n".join(parts)


def _question(entry: dict, values: dict[str, str]) -> str:
    say = lambda text: bind(str(text).strip(), values, entry["id"])  # noqa: E731
    mistake = " ".join(f"*{head}:* {say(entry['mistake'][key])}" for key, head in MISTAKE.items())
    body = [say(entry["answer"]), f"**Key insight.** {say(entry['key_insight'])}", mistake]
    if entry.get("napkin"):
        body.append(f"**Napkin.** {say(entry['napkin'])}")
    if entry.get("follow_ups"):
        body.append("**Follow-ups.** " + " · ".join(say(f) for f in entry["follow_ups"]))
    title = f"{say(entry['question'])} ({entry['minutes']} min)"
    return f"<details>\n<summary>{title}</summary>\n\n" + "\n\n".join(body) + "\n\n</details>"
