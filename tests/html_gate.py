"""What no built page may contain, found without a browser."""

from html.parser import HTMLParser
from pathlib import Path

LOADS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
LITERALS = ("{glue", "{measured", "{claims-ledger", "{run-", "[!NOTE]", "[!WARNING]")
FAILED_BOX = "this chapter is incomplete"


class Page(HTMLParser):
    """Collects what one page loads, its pictures without text, literal roles and tracebacks."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.problems: list[str] = []
        self.inside: list[str] = []
        self.feed(html)
        if "traceback" in html and FAILED_BOX not in html and 'class="output traceback' in html:
            self.problems.append("an error output without a box that says so")

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        url = given.get(LOADS.get(tag, ""), "") or ""
        navigation = tag == "link" and given.get("rel") in ("canonical", "next", "prev", "search")
        if url.startswith(("http:", "https:", "//")) and not navigation:
            self.problems.append(f"loads {url}")
        if tag == "img" and not (given.get("alt") or "").strip():
            self.problems.append(f"picture without alternative text: {given.get('src')}")
        if tag in ("pre", "code", "script", "style"):
            self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.inside and self.inside[-1] == tag:
            self.inside.pop()

    def handle_data(self, data: str) -> None:
        if not self.inside:
            self.problems += [f"literal {word}" for word in LITERALS if word in data]


def page_files(html: Path) -> list[Path]:
    """The pages of a built book, without the redirect and the index of terms."""
    skip = {"index.html", "genindex.html"}
    files = [p for p in html.rglob("*.html") if p.relative_to(html).as_posix() not in skip]
    return sorted(p for p in files if not p.relative_to(html).parts[0].startswith("_"))


def problems(html: Path) -> list[str]:
    """``page: problem`` lines for every page under ``html``."""
    return [
        f"{path.relative_to(html).as_posix()}: {problem}"
        for path in page_files(html)
        for problem in Page(path.read_text(encoding="utf8")).problems
    ]
