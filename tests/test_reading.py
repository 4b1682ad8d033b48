"""Glossary in prose, tiers, reading orders, downloads, repository links, repairs of the theme."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import sample_book
import yaml
from docutils import nodes

from mangalab.book import reading, site_access, site_glossary, site_orders, site_reading
from mangalab.book.project import BookError, Project

ROOT = Path(__file__).resolve().parents[1]
BOOK = Project(ROOT)
TERMS = [
    reading.Term(term="rank", text="Width of $BA$."),
    reading.Term(term="LoRA", text="Thin matrices.", aliases=("low-rank adapter",)),
    reading.Term(term="step", text="One update.", hover=False),
]


def marked(text: str, seen: dict | None = None) -> list[str]:
    """What is marked in a text, as written there."""
    known = site_glossary.names(TERMS)
    pieces = site_glossary.marked(
        text, site_glossary.matcher(tuple(known)), known, {} if seen is None else seen, lambda t: "#"
    )
    found = [re.search(r">(.*)<", p.astext())[1] for p in pieces if isinstance(p, nodes.raw)]
    assert re.sub(r"<[^>]*>", "", "".join(p.astext() for p in pieces)) == text
    return found


# ------------------------------------------------------------------------------------- glossary
@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Rank and rank and ranks", ["Rank"]),
        ("Two ranks", ["ranks"]),
        ("A low-rank adapter is LoRA", ["low-rank adapter"]),
        ("QLoRA, full-rank, cranks, Lora", []),
        ("a step", []),
    ],
)
def test_a_term_is_marked_once_and_only_as_a_whole_word(text, found):
    assert marked(text) == found


def test_a_term_that_was_seen_is_not_marked_again():
    seen = {}
    assert marked("LoRA first", seen) == ["LoRA"] and marked("LoRA again", seen) == []


def test_code_headings_links_tables_and_outputs_are_no_prose():
    kinds = [nodes.literal, nodes.reference, nodes.math, nodes.strong]
    texts = [kind("", "", nodes.Text(kind.__name__)) for kind in kinds]
    cell = nodes.container("", nodes.paragraph("", "output"), classes=["cell"])
    entry = nodes.entry("", nodes.paragraph("", "entry"))
    table = nodes.table("", nodes.tgroup("", nodes.tbody("", nodes.row("", entry))))
    section = nodes.section("", nodes.title("", "title"), nodes.paragraph("", "", *texts), cell, table)
    assert [text.astext() for text in site_glossary.prose(section)] == ["strong"]


def test_a_definition_has_its_formula_and_no_raw_html():
    html = site_glossary.definition(reading.Term(term="x<y", text="A *b* <i> of $a<b$"))
    assert "x&lt;y" in html and "<em>b</em> &lt;i&gt;" in html and r"\(a&lt;b\)" in html


def test_the_glossary_is_found_by_the_book():
    terms = reading.glossary(BOOK)
    assert len(terms) > 50 and len({t.term for t in terms}) == len(terms)


# ----------------------------------------------------------------------------- tiers and orders
def test_the_tiers_hold_every_chapter_once_and_agree_with_the_chapters_file():
    groups = reading.tiers(BOOK)
    numbers = [c.number for tier in groups for c in tier.chapters]
    assert sorted(numbers) == [f"{n:02d}" for n in range(1, 19)]
    chapters = yaml.safe_load((ROOT / "chapters.yml").read_text(encoding="utf8"))
    for name, entry in chapters.items():
        assert reading.tier_of(groups, name) == entry["tier"], name


def test_a_step_finds_its_page():
    pages = {"book/claims", "notebooks/04-lora-qlora"}
    find = reading.docname_of
    assert find(reading.Step(chapter="04"), pages) == "notebooks/04-lora-qlora"
    assert find(reading.Step(page="book/claims.md#x"), pages) == "book/claims"
    assert find(reading.Step(chapter="05"), pages) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [("- term: a", "entry 1, text: field required"), ("- {term: a, text: b, txt: c}", "txt"),
     ("a: [", "no valid YAML")],
)  # fmt: skip
def test_a_bad_file_names_its_entry(tmp_path, text, words):
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "glossary.yml").write_text(text, encoding="utf8")
    with pytest.raises(BookError, match=words):
        reading.glossary(Project(tmp_path))


class FakeApp:
    """As much of Sphinx as neighbours in an order need."""

    def __init__(self, *docnames: str) -> None:
        self.srcdir = ROOT
        self.env = SimpleNamespace(srcdir=ROOT, found_docs=set(docnames), titles={})
        self.builder = SimpleNamespace(get_relative_uri=lambda a, b: f"../{b}.html")


def test_neighbours_skip_what_is_planned():
    app = FakeApp("book/index", "notebooks/01-intent-classifier", "notebooks/04-lora-qlora")
    tiers = reading.orders(BOOK)[-1]
    here = site_orders.way(app, tiers, "notebooks/04-lora-qlora")
    assert (here["step"], here["of"], here["next"]) == (2, 2, None)
    assert here["prev"]["title"] == "01 Intent classification"
    assert site_orders.way(app, tiers, "book/index")["start"] == here["prev"]
    html = site_orders.tier_navigation(app, BOOK, "notebooks/04-lora-qlora")
    assert "Tier 2 of 5" in html and 'class="planned">05' in html


# ------------------------------------------------------------------- times, downloads, repository
@pytest.mark.parametrize(("seconds", "text"), [(12, "12 s"), (175, "3 min"), (3900, "1 h 5 min")])
def test_durations_are_said_as_people_say_them(seconds, text):
    assert reading.duration(seconds).replace("\u00a0", " ") == text


def test_reading_time_has_at_least_a_minute():
    assert [reading.minutes(words) for words in (0, 220, 221)] == [1, 1, 2]


def test_downloads_are_the_source_and_the_executed_copy(tmp_path):
    project, pages = Project(sample_book.make(tmp_path / "b")), tmp_path / "html"
    files = {f.path.rpartition("/")[2]: f for f in reading.publish(project, "cpu", "04-ran", pages)}
    assert set(files) == {"04-ran.ipynb", "04-ran-with-results.ipynb", "04-ran.py"}
    ran = json.loads((pages / files["04-ran-with-results.ipynb"].path).read_text(encoding="utf8"))
    assert any(cell.get("outputs") for cell in ran["cells"])
    assert "# # 04-ran" in (pages / files["04-ran.py"].path).read_text(encoding="utf8")
    project.executed("cpu", "04-ran").unlink()
    left = reading.publish(project, "cpu", "04-ran", pages)
    assert len(left) == 2 and not (pages / "downloads" / "04-ran-with-results.ipynb").exists()


@pytest.mark.parametrize(
    ("url", "buttons", "launchers"),
    [("", False, set()), ("https://github.com/a/b.git", True, {"binderhub_url", "colab_url"}),
     ("https://gitlab.com/a/b", True, {"binderhub_url"})],
)  # fmt: skip
def test_launch_buttons_need_a_repository(monkeypatch, url, buttons, launchers):
    monkeypatch.setenv("MANGALAB_REPOSITORY", url)
    config = SimpleNamespace(html_theme_options={"repository_url": ""})
    site_reading.use_repository(None, config)
    options = config.html_theme_options
    assert options["use_edit_page_button"] is buttons
    assert set(options["launch_buttons"]) - {"notebook_interface"} == launchers
    assert not options["repository_url"].endswith(".git")


# -------------------------------------------------------------------------------- the built sample
def page(name: str) -> str:
    return (sample_book.built("cpu") / f"{name}.html").read_text(encoding="utf8")


def test_a_chapter_shows_time_tools_and_downloads_that_exist():
    html = page("notebooks/04-ran")
    assert "5\u00a0min to read" in html and "ran in 1\u00a0min here" in html
    assert ".venv/bin/jupyter lab notebooks/04-ran.ipynb" in re.sub("<[^>]*>", "", html)
    links = re.findall(r'href="\.\./(downloads/[^"]*)"', html)
    assert len(set(links)) == 3
    assert all((sample_book.built("cpu") / link).is_file() for link in links)
    assert "about 1\u00a0min to run" in page("notebooks/06-never-run")


def test_other_pages_show_a_reading_time():
    assert '<p class="page-facts"><span>1\u00a0min to read</span></p>' in page("book/index")


def test_without_a_repository_there_is_no_link_to_one():
    html = page("notebooks/04-ran")
    assert "mybinder" not in html and "github.com" not in html


@pytest.mark.slow
def test_with_a_repository_the_launch_and_edit_links_are_there(tmp_path):
    folder = sample_book.make(tmp_path)
    done = sample_book.build(folder, MANGALAB_REPOSITORY="https://github.com/you/book")
    assert done.returncode == 0, done.stdout + done.stderr
    html = (folder / "_build/html/notebooks/04-ran.html").read_text(encoding="utf8")
    place = "main/notebooks/04-ran.ipynb"
    assert "mybinder.org/v2/gh/you/book/main" in html
    assert f"colab.research.google.com/github/you/book/blob/{place}" in html
    assert f"github.com/you/book/edit/{place}" in html


def test_the_themes_faults_are_still_there_to_repair():
    html = page("notebooks/04-ran")
    for wrong, right in site_access.REPAIRS:
        assert wrong not in html
        assert right in html or "summary" in right, right
    assert site_access.repaired(html) == html


def test_empty_table_headings_and_old_roles_go():
    context = {"body": '<th class="head"><p></p></th><div role="list" class="citation-list">'
               '<div class="citation" id="a" role="doc-biblioentry">'}  # fmt: skip
    site_access.repair_body(None, "", "", context, None)
    assert "<th" not in context["body"] and "role=" not in context["body"]
