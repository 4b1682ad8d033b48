"""Every built page opened in headless Chromium: light, dark on a phone, and from disk."""

from pathlib import Path

import browsing
import html_gate
import page_gate
import pytest

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def found(site: Path, served: str) -> dict[str, list[str]]:
    """What is wrong on the site's pages, by mode; axe-core has looked at them."""
    return {mode: page_gate.problems(site, served, mode) for mode in browsing.MODES}


def test_pages_pass_the_gate_without_a_browser(site):
    assert html_gate.problems(site) == []


@pytest.mark.parametrize("mode", browsing.MODES)
def test_every_page_is_sound_when_served(found, mode):
    assert [line for line in found[mode] if not page_gate.accepted(line)] == []


def test_every_page_is_sound_from_disk(site, from_disk):
    assert page_gate.problems(site, from_disk, "light desktop") == []


@pytest.mark.parametrize("site", ["book"], indirect=True)
def test_no_accepted_finding_has_gone(found):
    seen = {line.partition(": ")[2].partition(":")[0] for mode in found.values() for line in mode}
    gone = {f"axe {rule}" for rule in page_gate.KNOWN} - seen
    assert not gone, f"no page has these any more: take them out of page_gate.KNOWN: {gone}"


FAULTS = {
    "<img src='none.png'>": ("failed: ", "no alternative text", "not shown", "axe image-alt"),
    "<script src='https://cdn.example/x.js'></script>": ("external request: https://cdn.example",),
    "<script>nothing.here()</script>": ("script error: nothing is not defined",),
    "<p>{measured} is quoted</p>": ("literal {measured",),
    "<div style='width:3000px'>wide</div>": ("scrolls sideways by ",),
    "<details><summary>more</summary><div style='width:3000px'>w</div></details>": ("scrolls",),
    "<p style='color:#999;background:#fff'>pale</p>": ("axe color-contrast",),
    "<pre><span class='k' style='color:#999'>pale</span></pre>": ("axe color-contrast",),
    "<button></button>": ("axe button-name",),
    "<h1>Another</h1>": ("2 titles",),
    "<span class='math'>\\(x\\)</span>": ("1 formulas not typeset", "literal \\("),
    "<pre class='mermaid'>flowchart LR</pre>": ("1 diagrams not drawn",),
}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the gate says of each planted fault, each on a page of its own, and of a good page."""
    folder = tmp_path_factory.mktemp("faults")
    head = '<!doctype html><html lang="en"><title>t</title><link rel="icon" href="data:,">'
    page = head + "<main><h1>Title</h1>{}</main></html>"
    for number, fault in enumerate(["<p>good</p>", *FAULTS]):
        text = page.replace("{}", fault)
        (folder / f"{number}.html").write_text(text, encoding="utf8")
    with browsing.serving(folder) as base:
        lines = page_gate.problems(folder, base, "dark phone")
    return {
        fault: "\n".join(line for line in lines if line.startswith(f"{number}.html"))
        for number, fault in enumerate(["", *FAULTS])
    }


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named(planted, fault):
    for words in FAULTS[fault]:
        assert words in planted[fault]


def test_nothing_is_said_of_a_good_page(planted):
    assert planted[""] == ""


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("<img src='a.html' alt=' '>", "picture without alternative text"),
        ("<script src='//cdn.example/x.js'></script>", "loads //cdn.example/x.js"),
        ("{claims-ledger}", "literal {claims-ledger"),
        ("<a href='b.html'>b</a>", "link to b.html, which is not there"),
        ("<a href='a.html#nowhere'>b</a>", "link to a.html#nowhere: no such place"),
        ("<p id='x'></p><p id='x'></p>", "id 'x' 2 times"),
        ("<button onclick='x()'>b</button>", "a script in an attribute of <button>"),
    ],
)
def test_a_fault_in_the_html_is_named(tmp_path, fault, words):
    (tmp_path / "a.html").write_text(f"<h1 id='t'>t</h1><a href='#t'>t</a>{fault}", encoding="utf8")
    [problem] = html_gate.problems(tmp_path)
    assert words in problem
