"""Every built page opened in headless Chromium: light, dark on a phone, and from disk."""

from pathlib import Path

import browsing
import html_gate
import pytest

pytestmark = pytest.mark.browser

INSPECT = r"""() => {
  const found = [], count = (css) => document.querySelectorAll(css).length;
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (wide > 0) found.push(`scrolls sideways by ${wide} px`);
  if (!count("h1")) found.push("no title");
  const open = count("span.math, div.math") - count(".math mjx-container");
  if (open > 0) found.push(`${open} formulas not typeset`);
  if (count("mjx-merror")) found.push("a formula with an error");
  const undrawn = count("pre.mermaid") - count("pre.mermaid:has(svg)");
  if (undrawn) found.push(`${undrawn} diagrams not drawn`);
  if (count("svg[aria-roledescription=error]")) found.push("a diagram with a syntax error");
  for (const image of document.images) {
    if (!image.alt.trim()) found.push(`no alternative text: ${image.src}`);
    if (image.complete && !image.naturalWidth) found.push(`not shown: ${image.src}`);
  }
  const text = document.body.cloneNode(true);
  text.querySelectorAll("pre, code, script, style").forEach((node) => node.remove());
  for (const literal of ["{glue", "{measured", "$$", "\\(", "[!NOTE]"])
    if (text.textContent.includes(literal)) found.push(`literal ${literal}`);
  const dark = document.documentElement.dataset.theme === "dark";
  for (const image of document.querySelectorAll("article .cell_output img, pre.mermaid > svg"))
    if (dark && getComputedStyle(image).filter !== "none") found.push("a filtered figure");
  return found;
}"""


def visit_all(chromium: object, html: Path, base: str, mode: str) -> list[str]:
    """Problems of every page under ``html``, opened from ``base``."""
    watch = browsing.Watch(base)
    context = chromium.new_context(**browsing.MODES[mode])
    page = context.new_page()
    watch.over(page)
    for path in html_gate.page_files(html):
        page.goto(f"{base}/{path.relative_to(html).as_posix()}")
        page.evaluate(browsing.SETTLE)
        for problem in page.evaluate(INSPECT):
            watch.note(page, problem)
    context.close()
    return watch.problems


def test_pages_pass_the_gate_without_a_browser(site):
    assert html_gate.problems(site) == []


@pytest.mark.parametrize("mode", browsing.MODES)
def test_every_page_is_sound_when_served(chromium, site, served, mode):
    assert visit_all(chromium, site, served, mode) == []


def test_every_page_is_sound_from_disk(chromium, site, from_disk):
    assert visit_all(chromium, site, from_disk, "light desktop") == []


def test_search_finds_a_chapter_with_an_excerpt(visit):
    page = visit("search.html?q=claims")
    page.wait_for_selector("ul.search li p.context")
    assert page.locator("ul.search li a[href*='claims']").count() >= 1


def test_the_ledger_filters_by_words_and_by_verdict(visit):
    page = visit("book/claims.html")
    rows, shown = page.locator("table.ledger tbody tr"), "table.ledger tbody tr:visible"
    everything = page.locator(shown).count()
    assert everything == rows.count() > 1
    page.fill("input[name=text]", "003-01")
    assert 1 <= page.locator(shown).count() < everything
    page.fill("input[name=text]", "")
    wanted = page.locator("select[name=verdict] option").nth(1).inner_text()
    page.select_option("select[name=verdict]", wanted)
    verdicts = page.locator(shown).evaluate_all("rs => rs.map(r => r.dataset.verdict)")
    assert set(verdicts) == {wanted} and 1 <= len(verdicts) < everything


@browsing.SAMPLE_ONLY
def test_what_goes_wrong_on_a_visited_page_is_noted(visit, site):
    visit.bases[False] = visit.bases[True] = (site.parent).as_uri()
    bad = site / "bad-script.html"
    bad.write_text("<h1>x</h1><script>nothing.here()</script>", encoding="utf8")
    visit("html/bad-script.html")
    bad.unlink()
    assert len(visit.problems) == 1 and "nothing is not defined" in visit.problems.pop()


def test_the_planted_faults_are_caught(chromium, tmp_path):
    page = (
        "<h1>x</h1><img src='none.png'><script src='https://cdn.example/x.js'></script>{measured}"
    )
    (tmp_path / "bad.html").write_text(page + "<div style='width:3000px'>w</div>", encoding="utf8")
    found = "\n".join(visit_all(chromium, tmp_path, tmp_path.as_uri(), "dark phone"))
    for word in ("external request", "failed", "no alternative text", "literal", "sideways"):
        assert word in found
    assert len(html_gate.problems(tmp_path)) == 3
