"""Pages that are generated from run records alone: one module a page, plain functions to HTML.

Each function takes the records and a way to link to chapters. Nothing here knows Sphinx (that is
``site_records``); templates escape by themselves; a smoke record enters nothing but the status.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from ..pages import Runs
from ..project import Project
from . import atlas, comparisons, decisions, devices, ledger, states, trend
from .parts import Link

# by the name of the directive that shows it
TABLES: dict[str, Callable[[Runs, Link], str]] = {
    "claims-ledger": ledger.html,
    "run-status": states.html,
    "run-executions": states.executions_html,
    "run-comparisons": comparisons.html,
    "run-decisions": decisions.html,
    "run-atlas": atlas.html,
    "run-devices": devices.html,
    "run-trend": trend.html,
}


def fingerprint(project: Project, profile: str) -> str:
    """Hash of every table as it would be built now.

    The builder compares it: a table may change without a page's file or this profile's records
    (the history, another profile's run, a module that makes a run stale).
    """
    runs, total = Runs(project, profile), hashlib.sha256()
    for make in TABLES.values():
        total.update(make(runs, lambda chapter: None).encode())
    return total.hexdigest()
