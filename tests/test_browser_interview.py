"""Flash cards and mock interview, by clicks and keys in a real browser."""

import datetime as dt
import json
import re

import browsing
import pytest

pytestmark = [pytest.mark.browser]
CARDS, MOCK = "book/interview/cards.html", "book/interview/mock.html"
TODAY = dt.datetime(2026, 11, 22, 9, 0, 0)
# full for this page's keys; the theme, which stores the colour mode, does not expect it
NO_STORAGE = """const old = Storage.prototype.setItem;
Storage.prototype.setItem = function (key, value) {
  if (key.startsWith("mangalab.cards")) throw new DOMException("no", "QuotaExceededError");
  old.call(this, key, value); };"""


def counts(page) -> tuple[int, ...]:
    """Cards that are due, new, waiting."""
    return tuple(int(page.inner_text(f".iq-{name}")) for name in ("due", "new", "later"))


def shown(page) -> list[str]:
    """Ids of the questions that can be seen."""
    return page.locator("details.iq:visible").evaluate_all("all => all.map((one) => one.id)")


def boxes(page) -> list[int]:
    """Number of cards before box 1 and in boxes 1 to 6."""
    return [int(n) for n in page.locator(".iq-boxes b").all_inner_texts()]


def told(page, words: str) -> None:
    """Wait until the page's live region says something."""
    page.locator(".iq-status", has_text=words).wait_for()


def at(page, moment: dt.datetime, name: str) -> None:
    """Open a page anew with the clock standing at a moment."""
    page.clock.set_fixed_time(moment)
    page.goto(f"{page.url.partition('/book/')[0]}/{name}")


def answer(page, key: str) -> None:
    """Show the answer by Space and grade it."""
    page.keyboard.press("Space")
    page.wait_for_selector(".iq-grades:visible")
    page.keyboard.press(key)
    page.wait_for_selector(".iq-ask:visible")


# ---------------------------------------------------------------------- rules, without the pages' state
@browsing.SAMPLE_ONLY
@pytest.mark.parametrize(
    ("box", "mark", "expected"),
    [
        (0, 1, (1, "2026-11-22")), (0, 2, (1, "2026-11-23")), (0, 3, (1, "2026-11-23")),
        (0, 4, (2, "2026-11-25")), (3, 1, (1, "2026-11-22")), (3, 2, (3, "2026-11-23")),
        (3, 3, (4, "2026-12-06")), (3, 4, (5, "2026-12-22")), (6, 4, (6, "2027-01-21")),
    ],
)  # fmt: skip
def test_a_grade_moves_a_card_to_its_box(visit, box, mark, expected):
    card = {"box": box, "due": "2026-11-22", "last": "2026-11-01", "seen": 1} if box else None
    page = visit(CARDS)
    after = page.evaluate(f"c => interview.grade(c || undefined, {mark}, '2026-11-22')", card)
    assert (after["box"], after["due"]) == expected and after["seen"] == (2 if box else 1)


@browsing.SAMPLE_ONLY
def test_rules_of_dates_queue_and_files(visit):
    page = visit(CARDS)
    assert page.evaluate("interview.later('2024-02-28', 1)") == "2024-02-29"
    assert page.evaluate("interview.later('2026-10-24', 2)") == "2026-10-26"
    cards = {"a": "2026-11-23", "b": "2026-11-22", "c": "2026-11-20"}
    cards = {k: {"box": 1, "seen": 1, "last": "2026-11-19", "due": due} for k, due in cards.items()}
    line = page.evaluate("c => interview.queue(['new', 'a', 'b', 'c'], c, '2026-11-22')", cards)
    assert line == ["c", "b", "new"]
    newer = {"a": {**cards["a"], "box": 5, "last": "2026-11-21"}}
    newer["b"] = {**cards["b"], "last": "2026-11-01"}
    both = page.evaluate("([c, n]) => interview.merge(c, n)", [cards, newer])
    assert (both["a"]["box"], both["b"]["last"]) == (5, "2026-11-19")
    for text, words in (("x", "not JSON"), ("[]", "not the progress"), ("null", "not the progress")):
        with pytest.raises(Exception, match=words):
            page.evaluate("t => interview.readProgress(t)", text)


@browsing.SAMPLE_ONLY
def test_a_new_question_replaces_at_most_one_of_a_set(visit):
    pick = "([q, s]) => interview.pick(q, {set: s, n: 5}, interview.LEVELS).map((one) => one.id)"
    page = visit(MOCK)
    questions = [{"id": f"q{i}", "bank": "b", "level": "Fresh"} for i in range(60)]
    before, other = (set(page.evaluate(pick, [questions, name])) for name in ("abc", "abd"))
    after = set(page.evaluate(pick, [[*questions, {**questions[0], "id": "more"}], "abc"]))
    assert len(before) == 5 and len(before & after) >= 4 and before != other


# ---------------------------------------------------------------------- flash cards
@pytest.mark.parametrize("disk", [False, True], ids=["served", "from disk"])
def test_a_graded_card_keeps_its_box_over_a_reload(visit, disk):
    page = visit(CARDS, disk=disk)
    at(page, TODAY, CARDS)
    due, new, later = counts(page)
    assert (due, later) == (0, 0) and new == page.locator("details.iq").count()
    [first] = shown(page)
    answer(page, "3")
    assert counts(page) == (0, new - 1, 1) and boxes(page)[:2] == [new - 1, 1]
    assert "box 1, due tomorrow" in page.inner_text(".iq-status")
    assert shown(page) != [first]
    at(page, TODAY, CARDS)
    assert counts(page) == (0, new - 1, 1) and shown(page) != [first]
    at(page, TODAY + dt.timedelta(days=1), CARDS)
    assert counts(page) == (1, new - 1, 0) and shown(page) == [first]
    answer(page, "3")
    assert boxes(page)[:3] == [new - 1, 0, 1]


def test_cards_are_learnt_by_keyboard_alone(visit):
    page = visit(CARDS, "dark phone")
    [first] = shown(page)
    page.keyboard.press("ArrowRight")
    [second] = shown(page)
    assert second != first
    page.keyboard.press("ArrowLeft")
    assert shown(page) == [first]
    page.keyboard.press("3")  # no grade before the answer
    assert counts(page)[2] == 0
    page.keyboard.press("Space")
    page.wait_for_selector(f"#{first}[open] .iq-body:focus")
    page.keyboard.press("4")
    page.wait_for_selector(f"#{second} > summary:focus")
    assert boxes(page)[2] == 1
    page.click("[data-do=undo]")
    assert shown(page) == [first] and boxes(page)[2] == 0


@browsing.SAMPLE_ONLY
def test_a_forgotten_card_comes_again_and_the_end_is_told(visit):
    page = visit(CARDS)
    [first] = shown(page)
    answer(page, "1")
    assert shown(page) != [first] and counts(page)[0] == 1
    for _ in range(4):
        answer(page, "3")
    assert shown(page) == [first]
    answer(page, "3")
    page.keyboard.press("Space")
    page.wait_for_selector(".iq-grades:visible")
    page.keyboard.press("3")
    told(page, "nothing is due")
    assert shown(page) == [] and not page.is_visible(".iq-bar")


def test_filters_choose_bank_and_level(visit):
    page = visit(CARDS)
    page.select_option("select[name=level]", "Advanced")
    everything = page.locator("details.iq[data-level=Advanced]").count()
    assert counts(page)[1] == everything
    bank = page.locator("select[name=bank] option").nth(2).get_attribute("value")
    page.select_option("select[name=bank]", bank)
    some = page.locator(f"details.iq[data-level=Advanced][data-bank='{bank}']").count()
    assert counts(page)[1] == some >= 1
    assert page.get_attribute("details.iq:visible", "data-bank") == bank


@browsing.SAMPLE_ONLY
def test_progress_travels_as_a_file_and_is_forgotten_after_a_question(visit, tmp_path):
    page = visit(CARDS)
    answer(page, "4")
    page.click(".iq-tools > summary")
    with page.expect_download() as download:
        page.click("[data-do=export]")
    path = tmp_path / download.value.suggested_filename
    download.value.save_as(path)
    assert [card["box"] for card in json.loads(path.read_text("utf8"))["cards"].values()] == [2]
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.click("[data-do=reset]")
    assert boxes(page)[2] == 1
    page.once("dialog", lambda dialog: dialog.accept())
    page.click("[data-do=reset]")
    assert boxes(page)[2] == 0
    (tmp_path / "bad.json").write_text('{"cards": {}}', encoding="utf8")
    page.set_input_files(".iq-tools input", tmp_path / "bad.json")
    told(page, "Not loaded")
    page.set_input_files(".iq-tools input", path)
    told(page, "1 cards loaded")
    assert boxes(page)[2] == 1


@browsing.SAMPLE_ONLY
def test_without_storage_the_session_works_and_says_so(visit):
    page = visit(CARDS)
    page.add_init_script(NO_STORAGE)
    page.reload()
    assert "does not let the page store" in page.inner_text(".iq-warning")
    answer(page, "3")
    assert boxes(page)[1] == 1


# ---------------------------------------------------------------------- mock interview
@pytest.mark.parametrize("disk", [False, True], ids=["served", "from disk"])
def test_the_address_repeats_the_set(visit, disk):
    asked = []
    for _ in range(2):
        page = visit(f"{MOCK}#set=abc&n=4", disk=disk)
        page.click(".iq-setup button")
        asked.append([])
        for _ in range(4):
            asked[-1] += shown(page)
            page.keyboard.press("Space")
            page.wait_for_selector(".iq-judge:visible")
            page.keyboard.press("ArrowRight")
        page.wait_for_selector(".iq-result table")
        assert "set=abc" in page.url and "n=4" in page.url
        assert sorted(shown(page)) == sorted(asked[-1])
    assert asked[0] == asked[1] and len(set(asked[0])) == 4


@browsing.SAMPLE_ONLY
def test_the_clock_counts_until_the_answer_and_tells_when_time_is_up(visit):
    page = visit(f"{MOCK}#set=abc&n=2")
    page.clock.install(time=TODAY)
    page.reload()
    page.click(".iq-setup button")
    minutes = int(page.get_attribute("details.iq:visible", "data-minutes"))
    page.clock.run_for(65_000)
    assert page.inner_text(".iq-timer") == f"1:05 of {minutes}:00"
    page.clock.run_for((minutes * 60 - 65 + 10) * 1000)
    assert page.inner_text(".iq-timer") == f"0:10 over {minutes}:00"
    assert "time of this question is up" in page.inner_text(".iq-status")
    page.keyboard.press("Space")
    page.wait_for_selector(".iq-judge:visible")
    page.clock.run_for(60_000)
    assert page.inner_text(".iq-timer") == f"0:10 over {minutes}:00"
    page.keyboard.press("1")
    page.keyboard.press("ArrowRight")
    assert page.inner_text(".iq-timer").startswith("0:00 of")
    page.click("[data-do=end]")
    total = page.locator(".iq-result tbody tr").last.locator("td").all_inner_texts()
    total = [re.sub(r"\s", " ", text) for text in total]
    assert total == ["1", "1", "0", f"{minutes}:10 of {minutes}:00"]


# ---------------------------------------------------------------------- reading
def test_an_address_opens_its_question(visit):
    page = visit("book/interview/general.html")
    last = page.locator("details.iq").last.get_attribute("id")
    page.goto(page.url + f"#{last}")
    page.wait_for_selector(f"#{last}[open] .iq-body")


@browsing.SAMPLE_ONLY
@pytest.mark.parametrize("name", [CARDS, MOCK])
def test_without_a_script_the_page_is_a_list_of_questions(chromium, from_disk, name):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{from_disk}/{name}")
    assert page.locator("details.iq:visible").count() == 6 and page.locator(".iq-bar").count() == 0
    page.locator("details.iq > summary").first.click()
    assert page.locator(".iq-insight").first.is_visible()
    context.close()


@browsing.SAMPLE_ONLY
@pytest.mark.parametrize("name", ["04-ran", "print", "cards"])
def test_paper_shows_every_answer(visit, name):
    page = visit(f"book/interview/{name}.html")
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    insights = page.locator(".iq-insight")
    assert insights.count() >= 4
    assert all(insights.nth(i).is_visible() for i in range(insights.count()))
    assert not page.locator(".iq-bar:visible, .iq-app:visible").count()
