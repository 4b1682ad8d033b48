"""Built pages in headless Chromium: the kit that every ``tests/test_browser*.py`` shares.

A test asks for ``visit`` and gets pages that note everything that goes wrong on them; at its end
the test fails if anything was noted (console and script errors, failed requests, requests to
anything but the book)::

    import pytest

    pytestmark = pytest.mark.browser

    def test_the_ledger_filters_by_words(visit):
        page = visit("book/claims.html")                       # light, 1280 wide, served
        page.fill("input[name=text]", "003-01")
        assert page.locator("table.ledger tbody tr:visible").count() == 1

    def test_a_card_turns_by_keyboard_from_disk(visit):
        page = visit("book/cards.html", "dark phone", disk=True)   # 390 x 844, file://
        page.keyboard.press("Space")
        page.wait_for_selector(".card.turned")                 # an event, never a sleep

    @browsing.SAMPLE_ONLY                                      # not the real book as well
    def test_a_failed_chapter_says_so(visit): ...

Fixtures (registered in conftest.py): ``chromium`` one browser a session; ``site`` the folder of
built pages, first of the sample (tests/sample_book.py), then of the book; ``served`` its URL;
``from_disk`` its file:// address; ``visit(name, mode="light desktop", disk=False)`` a Playwright
page. ``visit.problems`` is the list of what was noted: clear it where a fault is planted.

``MANGALAB_HTML`` names a folder of built pages to test in place of the smoke book of this session
(``-k "not smoke"`` or ``-k sample`` leaves the book out); ``MANGALAB_CHROMIUM`` names the browser.
"""

import functools
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import sample_book

CANDIDATES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# names resolve to nothing, so that a page that needs the network cannot hide it
FLAGS = ["--no-sandbox", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"]
MODES = {
    "light desktop": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "dark phone": {
        "viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "has_touch": True,
    },
}  # fmt: skip
SITES = ("sample", "book")
SAMPLE_ONLY = pytest.mark.parametrize("site", ["sample"], indirect=True)

# formulas and diagrams are drawn late, and only where they are visible
SETTLE = """async () => {
  const drawn = (diagram) => diagram.querySelector("svg");
  const diagrams = [...document.querySelectorAll("pre.mermaid")];
  document.querySelectorAll("details:has(pre.mermaid)").forEach((d) => { d.open = true; });
  if (window.MathJax && MathJax.startup) await MathJax.startup.promise;
  for (let turn = 0; turn < 160 && !diagrams.every(drawn); turn++) {
    diagrams.find((diagram) => !drawn(diagram)).scrollIntoView();
    await new Promise((done) => setTimeout(done, 25));
  }
}"""


def find_browser() -> str | None:
    """Path of a Chromium: ``MANGALAB_CHROMIUM`` or the first one on the path."""
    named = os.environ.get("MANGALAB_CHROMIUM")
    return named or next((path for name in CANDIDATES if (path := shutil.which(name))), None)


def need_browser() -> str:
    """Path of a Chromium; skips the test where there is none, or no Playwright."""
    reason = "playwright is not installed: pip install -r requirements.lock"
    pytest.importorskip("playwright.sync_api", reason=reason)
    path = find_browser()
    if path is None:
        pytest.skip("no Chromium: install it (apt-get install chromium) or set MANGALAB_CHROMIUM")
    return path


class Quiet(SimpleHTTPRequestHandler):
    """A file server that does not print requests."""

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """URL of a folder served on this machine, on a free port of the loopback interface."""
    handler = functools.partial(Quiet, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Watch:
    """Notes everything that goes wrong on the pages (of Playwright's either API) it watches."""

    base: str
    problems: list[str] = field(default_factory=list)

    def over(self, page: object) -> None:
        """Listen to a page from now on."""
        page.on("console", lambda m: m.type == "error" and self.note(page, f"console: {m.text}"))
        page.on("pageerror", lambda error: self.note(page, f"script error: {error}"))
        page.on("requestfailed", lambda request: self.check_failure(page, request))
        page.on("request", lambda request: self.check_request(page, request))
        page.on("response", lambda response: self.check_response(page, response))

    def note(self, page: object, problem: str) -> None:
        self.problems.append(f"{page.url.removeprefix(self.base).lstrip('/')}: {problem}")

    def check_failure(self, page: object, request: object) -> None:
        if request.failure != "net::ERR_ABORTED":  # leaving a page aborts its favicon
            self.note(page, f"failed: {request.url}")

    def check_response(self, page: object, response: object) -> None:
        if response.status >= 400:
            self.note(page, f"failed: {response.status} {response.url}")

    def check_request(self, page: object, request: object) -> None:
        if not request.url.startswith((self.base, "data:", "blob:")):
            self.note(page, f"external request: {request.url}")


class Visit:
    """Opens pages of a built book; what goes wrong on them is in ``problems``."""

    def __init__(self, chromium: object, site: Path, served: str) -> None:
        self.chromium, self.bases = chromium, {False: served, True: site.as_uri()}
        self.contexts: list = []
        self.problems: list[str] = []

    def __call__(self, name: str, mode: str = "light desktop", disk: bool = False) -> object:
        """A Playwright page at ``name``, in a fresh profile, with formulas and diagrams drawn."""
        context = self.chromium.new_context(**MODES[mode])
        self.contexts.append(context)
        context.set_default_timeout(10_000)
        page, base = context.new_page(), self.bases[disk]
        Watch(base, self.problems).over(page)
        page.goto(f"{base}/{name}")
        page.evaluate(SETTLE)
        return page

    def close(self) -> None:
        """Close every page."""
        while self.contexts:
            self.contexts.pop().close()


@pytest.fixture(scope="session")
def chromium() -> Iterator:
    """One headless Chromium for the session (its event loop stays: conftest runs these tests last)."""
    path = need_browser()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session", params=SITES)
def site(request: pytest.FixtureRequest) -> Path:
    """Folder of built pages: the sample with its failed and stale chapters, then the book."""
    if request.param == "sample":
        return sample_book.built("cpu")
    named = os.environ.get("MANGALAB_HTML")
    return Path(named).resolve() if named else request.getfixturevalue("smoke_book")


@pytest.fixture(scope="session")
def served(site: Path) -> Iterator[str]:
    """URL of the built pages on this machine."""
    with serving(site) as url:
        yield url


@pytest.fixture(scope="session")
def from_disk(site: Path) -> str:
    """Address of the built pages on the disk."""
    return site.as_uri()


@pytest.fixture
def visit(chromium: object, site: Path, served: str) -> Iterator[Visit]:
    """Opens pages of the site; after the test, nothing may have gone wrong on them."""
    pages = Visit(chromium, site, served)
    yield pages
    pages.close()
    if pages.problems:
        pytest.fail("on the pages that this test opened:\n" + "\n".join(pages.problems))
