"""The decision guide in a real browser: answers hide rules, the address remembers them."""

import browsing
import pytest

from mangalab.book import guide

pytestmark = [pytest.mark.browser]
PAGE = "book/decision-guide.html"
SAMPLE = browsing.SAMPLE_ONLY
RULES = guide.load(browsing.sample_book.ROOT)["rules"]


def shown(page) -> list[str]:
    """Ids of the visible rules, in order."""
    boxes = page.locator(".guide-rule:visible").all()
    return [box.get_attribute("id").removeprefix("rule-") for box in boxes]


@pytest.mark.parametrize("mode", ["light desktop", "dark phone"])
def test_answers_hide_what_they_contradict(visit, mode):
    page = visit(PAGE, mode, disk=True)
    assert shown(page) == [rule["id"] for rule in RULES]
    given = {"wrong": "route", "rows": "some", "test": "yes", "weights": "yes", "live": "no"}
    for name, value in given.items():
        page.locator(f"select[name={name}]").select_option(value)
    assert shown(page) == guide.chosen(RULES, given)
    assert page.locator(".guide-first").get_attribute("id") == "rule-threshold"
    says = page.locator(".guide-says").inner_text()
    assert f"{len(guide.chosen(RULES, given))} of {len(RULES)}" in says
    page.reload()
    page.locator(".guide-form:visible").wait_for()
    assert shown(page) == guide.chosen(RULES, given)
    page.get_by_role("button", name="Start again").click()
    page.locator(".guide-says", has_text=f"{len(RULES)} of {len(RULES)}").wait_for()
    assert len(shown(page)) == len(RULES)


def test_by_keyboard(visit):
    page = visit(PAGE)
    page.get_by_label("What is wrong?").focus()
    page.keyboard.press("ArrowDown")
    assert len(shown(page)) < len(RULES)
