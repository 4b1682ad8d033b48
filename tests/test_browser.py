"""Every built page opened in headless Chromium: light, dark on a phone, and from disk.

``MANGALAB_HTML`` names the folder of built pages (default: the smoke book of this session);
``MANGALAB_CHROMIUM`` the browser.
"""

import functools
import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import html_gate
import pytest
import sample_book

pytestmark = pytest.mark.browser
CANDIDATES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# names resolve to nothing, so that a page that needs the network cannot hide it
FLAGS = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"]
MODES = {
    "light desktop": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "dark phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"},
}

SETTLE = """async () => {
  document.querySelectorAll("details").forEach((d) => { d.open = true; });
  if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
  const diagrams = [...document.querySelectorAll("pre.mermaid")];
  const waiting = () => diagrams.find((diagram) => !diagram.querySelector("svg"));
  for (let turn = 0; turn < 80 && waiting(); turn++) {
    waiting().scrollIntoView();
    await new Promise((done) => setTimeout(done, 50));
  }
}"""

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


def find_browser() -> str | None:
    """Path of a Chromium: ``MANGALAB_CHROMIUM`` or the first one on the path."""
    named = os.environ.get("MANGALAB_CHROMIUM")
    return named or next((path for name in CANDIDATES if (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator:
    """One headless Chromium for the module."""
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = find_browser()
    if path is None:
        pytest.skip("no Chromium: install it (apt-get install chromium) or set MANGALAB_CHROMIUM")
    with sync.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module", params=["the book", "the sample"])
def html(request: pytest.FixtureRequest) -> Path:
    """Folder of built pages: the book, then the sample that has a failed chapter and an error."""
    if request.param == "the sample":
        return sample_book.built("cpu")
    named = os.environ.get("MANGALAB_HTML")
    return Path(named) if named else request.getfixturevalue("smoke_book")


class Quiet(SimpleHTTPRequestHandler):
    """A file server that does not print requests."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def served(html: Path) -> Iterator[str]:
    """URL of the built pages on this machine."""
    handler = functools.partial(Quiet, directory=str(html))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@dataclass
class Visitor:
    """One tab that notes everything that goes wrong on the pages it opens."""

    page: object
    base: str
    where: str = ""
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", lambda m: m.type == "error" and self.note(f"console: {m.text}"))
        self.page.on("pageerror", lambda error: self.note(f"script error: {error}"))
        self.page.on("requestfailed", self.check_failure)
        self.page.on("request", self.check_request)
        self.page.on("response", self.check_response)

    def note(self, problem: str) -> None:
        self.problems.append(f"{self.where}: {problem}")

    def check_failure(self, request: object) -> None:
        if request.failure != "net::ERR_ABORTED":  # leaving a page aborts its favicon
            self.note(f"failed: {request.url}")

    def check_response(self, response: object) -> None:
        if response.status >= 400:
            self.note(f"failed: {response.status} {response.url}")

    def check_request(self, request: object) -> None:
        if not request.url.startswith((self.base, "data:", "blob:")):
            self.note(f"external request: {request.url}")

    def open(self, name: str) -> None:
        """Open a page and let formulas and diagrams finish."""
        self.where = name
        self.page.goto(f"{self.base}/{name}")
        self.page.evaluate(SETTLE)

    def inspect(self, name: str) -> None:
        """Open a page and note what is wrong with it."""
        self.open(name)
        for problem in self.page.evaluate(INSPECT):
            self.note(problem)


def visit_all(browser: object, html: Path, base: str, mode: str) -> list[str]:
    """Problems of every page under ``html``, opened from ``base``."""
    context = browser.new_context(**MODES[mode])
    visitor = Visitor(context.new_page(), base)
    for path in html_gate.page_files(html):
        visitor.inspect(path.relative_to(html).as_posix())
    context.close()
    return visitor.problems


def test_pages_pass_the_gate_without_a_browser(html):
    assert html_gate.problems(html) == []


@pytest.mark.parametrize("mode", MODES)
def test_every_page_is_sound_when_served(browser, html, served, mode):
    assert visit_all(browser, html, served, mode) == []


def test_every_page_is_sound_from_disk(browser, html):
    assert visit_all(browser, html, html.as_uri(), "light desktop") == []


def test_search_finds_a_chapter_with_an_excerpt(browser, html, served):
    visitor = Visitor(browser.new_page(), served)
    visitor.open("search.html?q=claims")
    visitor.page.wait_for_selector("ul.search li p.context")
    assert visitor.page.locator("ul.search li a[href*='claims']").count() >= 1
    assert visitor.problems == []


def test_the_ledger_filters_by_words_and_by_verdict(browser, html, served):
    visitor = Visitor(browser.new_page(), served)
    visitor.open("book/claims.html")
    rows, shown = visitor.page.locator("table.ledger tbody tr"), "table.ledger tbody tr:visible"
    everything = visitor.page.locator(shown).count()
    assert everything == rows.count() > 1
    visitor.page.fill("input[name=text]", "003-01")
    assert 1 <= visitor.page.locator(shown).count() < everything
    visitor.page.fill("input[name=text]", "")
    wanted = visitor.page.locator("select[name=verdict] option").nth(1).inner_text()
    visitor.page.select_option("select[name=verdict]", wanted)
    verdicts = visitor.page.locator(shown).evaluate_all("rs => rs.map(r => r.dataset.verdict)")
    assert set(verdicts) == {wanted} and 1 <= len(verdicts) < everything
    assert visitor.problems == []


def test_the_planted_faults_are_caught(browser, tmp_path):
    page = (
        "<h1>x</h1><img src='none.png'><script src='https://cdn.example/x.js'></script>{measured}"
    )
    (tmp_path / "bad.html").write_text(page + "<div style='width:3000px'>w</div>", encoding="utf8")
    found = "\n".join(visit_all(browser, tmp_path, tmp_path.as_uri(), "dark phone"))
    for word in ("external request", "failed", "no alternative text", "literal", "sideways"):
        assert word in found
    assert len(html_gate.problems(tmp_path)) == 3
