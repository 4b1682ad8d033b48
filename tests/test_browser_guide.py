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


def test_a_known_case_fills_the_form(visit):
    page = visit(PAGE)
    page.get_by_role("link", name="Medical diagnosis").click()
    assert page.locator("select[name=change]").input_value() == "never"
    given = next(c["given"] for c in guide.load(browsing.sample_book.ROOT)["cases"]
                 if c["case"] == "Medical diagnosis")  # fmt: skip
    assert shown(page) == guide.chosen(RULES, given)
    page.locator(".guide-cases ol a").last.click()
    assert len(shown(page)) == len(RULES)


@SAMPLE
def test_without_a_script_every_rule_and_case_reads(chromium, served):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{served}/{PAGE}")
    assert len(shown(page)) == len(RULES) and not page.locator(".guide-form").is_visible()
    assert page.locator(".guide-cases tbody tr").count() == 6
    context.close()
