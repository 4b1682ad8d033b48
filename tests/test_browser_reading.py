"""Reading in a browser: definitions, reading orders, downloads, print, landing page."""

import browsing
import pytest

pytestmark = [pytest.mark.browser, browsing.SAMPLE_ONLY]
HOME = "book/index.html"
CHAPTER = "notebooks/04-ran.html"


def test_a_definition_opens_by_keyboard_and_closes_with_escape(visit):
    page = visit(CHAPTER)
    term = page.locator("a.gloss").first
    described = term.get_attribute("aria-describedby")
    assert page.locator(f"#{described}").count() == 1
    term.focus()
    page.wait_for_selector("#gloss-box:visible")
    assert "singular value" in page.inner_text("#gloss-box").lower()
    page.keyboard.press("Escape")
    page.wait_for_selector("#gloss-box", state="hidden")


def test_a_definition_opens_by_pointing_at_it(visit):
    page = visit(CHAPTER)
    page.locator("a.gloss").first.hover()
    page.wait_for_selector("#gloss-box:visible")
    page.mouse.move(2, 2)
    page.wait_for_selector("#gloss-box", state="hidden")


def test_a_tap_opens_a_definition_from_disk_and_stays_on_the_page(visit):
    page = visit(CHAPTER, "dark phone", disk=True)
    term = page.locator("a.gloss").first
    term.scroll_into_view_if_needed()
    term.tap()
    page.wait_for_selector("#gloss-box:visible")
    assert page.url.endswith(CHAPTER)
    box = page.locator("#gloss-box").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    page.locator("#gloss-box a").click()
    page.wait_for_url("**/book/glossary.html#*")


def follow(page: object) -> None:
    """Choose the order of the sample."""
    page.click("button[data-order=interview]")
    page.wait_for_selector("button[data-order=interview][aria-pressed=true]")


@pytest.mark.parametrize("disk", [False, True])
def test_a_chosen_order_changes_next_and_survives_navigation(visit, disk):
    page = visit(CHAPTER, disk=disk)
    before = page.locator(".right-next").get_attribute("href")
    page.goto(page.url.replace(CHAPTER, "book/reading-orders.html"))
    follow(page)
    page.locator("#order-interview li a", has_text="04").click()
    page.wait_for_selector(".way:has-text('step 1 of 2')")
    after = page.locator(".right-next").get_attribute("href")
    assert "claims.html" in after and after != before
    page.click(".right-next")
    page.wait_for_selector(".way:has-text('step 2 of 2')")
    assert page.locator(".right-next").count() == 0
    page.click(".way button")
    page.wait_for_selector(".right-next")
    assert page.locator(".way").count() == 0


def test_an_order_can_be_chosen_by_a_link(visit):
    page = visit(f"{CHAPTER}?order=interview")
    assert page.locator(".way").count() == 1
    page = visit(f"{CHAPTER}?order=no-such-order")
    assert page.locator(".way").count() == 0


def test_downloads_resolve(visit):
    page = visit(CHAPTER)
    page.click(".chapter-tools > summary")
    for place in range(page.locator(".downloads a").count()):
        with page.expect_download() as got:
            page.locator(".downloads a").nth(place).click()
        assert got.value.path().stat().st_size > 500
    assert place == 2


def test_paper_has_no_navigation_and_everything_unfolded(visit):
    page = visit(CHAPTER)
    page.emulate_media(media="print")
    for part in (".bd-sidebar-primary", ".prev-next-footer", ".bd-header-article", ".chapter-tools"):
        assert not page.locator(part).first.is_visible(), part
    assert page.locator("h1:visible").count() == 1
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert page.evaluate("document.documentElement.dataset.theme") == "light"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.locator(".chapter-tools[open]").count() == 0


def test_the_first_tab_stop_leads_to_the_text(visit):
    page = visit(HOME)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.getAttribute('href')") == "#main-content"


def test_pictures_of_the_landing_page_say_in_words_what_they_show(visit):
    page = visit(HOME)
    labels = page.locator("svg.ml-draw").evaluate_all("all => all.map(s => s.ariaLabel)")
    assert labels and all(label and len(label) > 20 for label in labels)
    assert page.locator(".finding.empty", has_text="make book").count() == 2
