"""A reader's hands on the pages: typing, clicking, folding, and keys alone."""

import browsing
import page_gate
import pytest

pytestmark = pytest.mark.browser
BOTH = pytest.mark.parametrize("disk", [False, True], ids=["served", "from disk"])


@BOTH
def test_a_search_typed_finds_a_page_and_marks_the_word(visit, disk):
    page = visit("book/index.html", disk=disk)
    page.keyboard.press("Control+k")
    page.wait_for_selector("input[type=search]:focus, input[name=q]:focus")
    page.keyboard.type("scenario")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=scenario*")
    found = page.locator("ul.search li a[href*='notebooks/']")
    found.first.wait_for()
    if not disk:  # browsers refuse to fetch excerpts for pages from disk
        page.wait_for_selector("ul.search li p.context")
    found.first.click()
    page.wait_for_url("**/notebooks/*.html*")
    page.wait_for_function("document.querySelector('article .highlighted')")
    marked = page.locator("article .highlighted").first.inner_text()
    assert marked.lower().startswith("scenario")


@browsing.SAMPLE_ONLY
@pytest.mark.parametrize("mode", browsing.MODES)
def test_the_words_that_were_searched_for_are_readable(visit, mode):
    page = visit("search.html?q=scenario", mode)
    page.locator("ul.search li a[href*='04-ran']").first.click()
    page.wait_for_function("document.querySelector('article .highlighted')")
    page.evaluate(page_gate.AXE.read_text(encoding="utf8"))
    found = page.evaluate(page_gate.CHECK)
    assert [finding for finding in found if finding[0] == "color-contrast"] == []


@BOTH
def test_the_ledger_filters_by_words_and_by_verdict(visit, disk):
    page = visit("book/claims.html", disk=disk)
    rows, shown = page.locator("[id^='claim-']"), "[id^='claim-']:visible"
    everything = page.locator(shown).count()
    assert everything == rows.count() > 1
    page.fill("input[name=text]", "003-01")
    assert 1 <= page.locator(shown).count() < everything
    page.fill("input[name=text]", "")
    wanted = page.locator("select[name=verdict] option").nth(1).get_attribute("value")
    wanted = wanted or page.locator("select[name=verdict] option").nth(1).inner_text()
    page.select_option("select[name=verdict]", wanted)
    verdicts = page.locator(shown).evaluate_all("rs => rs.map(r => r.dataset.verdict)")
    assert set(verdicts) == {wanted} and 1 <= len(verdicts) < everything


@BOTH
@browsing.SAMPLE_ONLY
def test_the_theme_is_switched_and_remembered(visit, disk):
    page = visit("book/index.html", disk=disk)
    switch = page.locator(".theme-switch-button:visible")
    theme = "document.documentElement.dataset.theme"
    assert page.evaluate(theme) == "light"
    for _ in range(3):
        if page.evaluate(theme) == "dark":
            break
        switch.click()
    assert page.evaluate(theme) == "dark"
    page.click(".bd-sidebar-primary a[href*='notebooks/04-ran']")
    page.wait_for_url("**/04-ran.html")
    assert page.evaluate(theme) == "dark"


@browsing.SAMPLE_ONLY
def test_the_sidebar_opens_on_a_phone_and_leads_on(visit):
    page = visit("book/index.html", "dark phone")
    link = page.locator(".bd-sidebar-primary a[href*='notebooks/04-ran']")
    assert not link.is_visible()
    page.tap("button.primary-toggle")
    link.wait_for(state="visible")
    link.tap()
    page.wait_for_url("**/04-ran.html")
    assert page.locator("article h1").inner_text().startswith("04-ran")


@browsing.SAMPLE_ONLY
def test_the_copy_button_copies_the_code(visit):
    page = visit("notebooks/04-ran.html")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    cell = page.locator("div.cell_input", has_text="rank = 16").first
    cell.hover()
    cell.locator("button.copybtn").click()
    page.wait_for_selector("button.copybtn.success")
    assert page.evaluate("navigator.clipboard.readText()").strip() == "rank = 16"


@browsing.SAMPLE_ONLY
def test_folded_code_opens_by_click_and_by_key(visit):
    page = visit("notebooks/04-ran.html")
    fold = page.locator(".tag_hide-input details").first
    code = fold.locator("pre", has_text="lab.show")
    assert not code.is_visible()
    fold.locator("summary").click()
    assert code.is_visible()
    fold.locator("summary").press("Enter")
    assert not code.is_visible()


@browsing.SAMPLE_ONLY
def test_keys_alone_lead_to_the_text(visit):
    page = visit("notebooks/04-ran.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('#pst-skip-link') !== null")
    page.keyboard.press("Enter")
    page.wait_for_url("**#main-content")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('main') !== null")


@BOTH
@browsing.SAMPLE_ONLY
def test_a_diagram_fills_the_screen_and_goes_back(visit, disk):
    page = visit("notebooks/04-ran.html", disk=disk)
    small = page.locator("pre.mermaid svg").first.bounding_box()["width"]
    page.locator(".mermaid-container").first.hover()
    page.locator(".mermaid-fullscreen-btn").first.click()
    large = page.locator(".mermaid-fullscreen-modal svg")
    large.wait_for(state="visible")
    assert large.bounding_box()["width"] > small
    page.keyboard.press("Escape")
    large.wait_for(state="hidden")
