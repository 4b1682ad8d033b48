"""What no built page may contain, found without a browser, and what its links must find."""

from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADS = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}
LITERALS = ("{glue", "{measured", "{claims-ledger", "{run-", "[!NOTE]", "[!WARNING]")
THEME_SCRIPTS = {"toggleFullScreen()", "window.print()"}  # in attributes of the theme's buttons
FAILED_BOX = "this chapter is incomplete"


class Page(HTMLParser):
    """One page: its ids, where its links lead, and what is wrong with it by itself."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.problems: list[str] = []
        self.ids: Counter[str] = Counter()
        self.links: list[str] = []
        self.inside: list[str] = []
        self.feed(html)
        self.problems += [f"id {name!r} {n} times" for name, n in self.ids.items() if n > 1]
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
        if {value for name, value in attributes if name.startswith("on")} - THEME_SCRIPTS:
            self.problems.append(f"a script in an attribute of <{tag}>")
        if given.get("id"):
            self.ids[given["id"]] += 1
        self.links += [url for name in ("href", "src") if (url := given.get(name))]
        if tag in ("pre", "code", "script", "style"):
            self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.inside and self.inside[-1] == tag:
            self.inside.pop()

    def handle_data(self, data: str) -> None:
        if not self.inside:
            text = data.replace("\\text{measured}", "")  # a word in a formula, not a role
            self.problems += [f"literal {word}" for word in LITERALS if word in text]


def page_files(html: Path) -> list[Path]:
    """The pages of a built book, without the redirect and the index of terms."""
    skip = {"index.html", "genindex.html"}
    files = [p for p in html.rglob("*.html") if p.relative_to(html).as_posix() not in skip]
    return sorted(p for p in files if not p.relative_to(html).parts[0].startswith("_"))


def broken_links(path: Path, page: Page, pages: dict[Path, Page]) -> list[str]:
    """Links of a page to files or places in pages that are not there.

    A fragment with an equals sign is a state of the page (`#verdict=wrong`), not a place.
    """
    found = []
    for link in dict.fromkeys(page.links):
        url = urlsplit(link)
        if url.scheme or url.netloc:
            continue
        target = (path.parent / unquote(url.path)).resolve() if url.path else path
        place = unquote(url.fragment)
        if not target.is_file():
            found.append(f"link to {link}, which is not there")
        elif place and "=" not in place and target in pages and place not in pages[target].ids:
            found.append(f"link to {link}: no such place")
    return found


def problems(html: Path) -> list[str]:
    """``page: problem`` lines for every page under ``html``."""
    html = html.resolve()
    pages = {path: Page(path.read_text(encoding="utf8")) for path in page_files(html)}
    return [
        f"{path.relative_to(html).as_posix()}: {problem}"
        for path, page in pages.items()
        for problem in [*page.problems, *broken_links(path, page, pages)]
    ]
