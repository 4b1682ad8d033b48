"""The reading orders name chapters and pages that are planned or there, each once an order."""

from collections import Counter
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
CHAPTERS = {f"{number:02d}" for number in range(1, 19)}


@pytest.fixture(scope="module")
def orders():
    found = yaml.safe_load((ROOT / "book" / "reading-orders.yml").read_text(encoding="utf8"))
    return {order["id"]: order for order in found}


def test_every_step_is_one_page_or_chapter_with_its_reason(orders):
    assert set(orders) == {"interview", "implementation", "mathematics"}
    for order in orders.values():
        assert order.keys() == {"id", "title", "for", "steps"}
        for step in order["steps"]:
            assert step.keys() in ({"page", "why"}, {"chapter", "why"}), step
            assert 5 < len(step["why"]) < 120, step


def test_no_step_comes_twice_and_every_chapter_exists(orders):
    for name, order in orders.items():
        steps = Counter(step.get("page") or step["chapter"] for step in order["steps"])
        assert max(steps.values()) == 1, name
        assert {step["chapter"] for step in order["steps"] if "chapter" in step} <= CHAPTERS, name


@pytest.mark.parametrize("name", ["implementation", "mathematics"])
def test_long_orders_lead_through_the_whole_book(orders, name):
    assert {step.get("chapter") for step in orders[name]["steps"]} - {None} == CHAPTERS
