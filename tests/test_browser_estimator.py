"""The calculator in a real browser: it answers as Python does, refuses by name, and works from disk."""

import json
import re

import browsing
import pytest

from mangalab import sizing
from mangalab.sizing import Plan

pytestmark = [pytest.mark.browser]
PAGE = "book/estimator.html"
SAMPLE = browsing.SAMPLE_ONLY
START = Plan(sizing.SHAPES["Llama-3-8B"], "qlora", batch=4, length=2048)


def gb(plan: Plan) -> str:
    """The peak as the page writes it."""
    size = sizing.memory(plan).total / 1e9
    return f"{size:,.3f}".rstrip("0").rstrip(".") if size < 10 else f"{size:,.1f}".removesuffix(".0")


def says(page, words: str) -> None:
    """Wait until the live region says something."""
    page.locator(".est-says", has_text=words).wait_for()


@pytest.mark.parametrize("mode", ["light desktop", "dark phone"])
def test_it_answers_from_disk_as_python_does(visit, mode):
    page = visit(PAGE, mode, disk=True)
    says(page, f"{gb(START)} GB at the peak (loss): fits on A100-80")
    page.get_by_label("Tokens with logits at once").fill("256")
    says(page, gb(Plan(START.shape, "qlora", batch=4, length=2048, loss_tokens=256)))
    page.get_by_label("Method").select_option("full")
    full = Plan(START.shape, "full", precision="mixed", batch=4, length=2048, loss_tokens=256)
    says(page, f"{gb(full)} GB at the peak ({sizing.memory(full).peak}): does not fit")
    assert page.get_by_label("LoRA rank").is_hidden()
    command = page.locator(".est-command code").inner_text()
    assert command.startswith("mangalab estimate llama-3-8b --method full --batch 4 --sequence 2048")
    width = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert width <= 0


@SAMPLE
def test_the_command_that_it_shows_gives_the_same_answer(visit):
    from typer.testing import CliRunner

    from mangalab.book.cli import app

    page = visit(PAGE)
    page.get_by_label("Adapted linears").select_option("all-linear")
    page.get_by_label("Devices", exact=True).fill("4")
    page.get_by_label("Sharding").select_option("zero3")
    words = page.locator(".est-command code").inner_text().split()[1:]
    told = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    shown = page.locator(".est-says strong").inner_text()
    size = told["memory_bytes"]["total"] / 1e9
    assert float(re.sub("[^0-9.]", "", shown)) == pytest.approx(size, abs=0.06)


@SAMPLE
def test_wrong_input_is_named_and_the_old_answer_goes(visit):
    page = visit(PAGE)
    page.get_by_label("Sequences a step").fill("-1")
    says(page, "Sequences a step and device: -1 is no whole number of at least 0")
    assert page.locator(".est-answer table").count() == 0
    assert page.locator("[name=batch]").get_attribute("aria-invalid") == "true"
    page.get_by_label("Sequences a step").fill("4")
    says(page, gb(START))
    page.get_by_label("Model", exact=True).select_option("own config.json")
    says(page, "Paste the text of a config.json")
    page.get_by_label("The text of a config.json").fill("{")
    says(page, "The config.json is no JSON")
    shape = {"model_type": "llama", "num_hidden_layers": 32, "hidden_size": 4096,
             "vocab_size": 128256, "num_attention_heads": 32, "num_key_value_heads": 8,
             "intermediate_size": 14336}  # fmt: skip
    page.get_by_label("The text of a config.json").fill(json.dumps(shape))
    says(page, gb(START))


@SAMPLE
def test_each_control_has_a_label_and_the_files_stay_on_the_page(visit):
    page = visit(PAGE)
    controls = page.locator(".est-form :is(input, select, textarea)")
    names = controls.evaluate_all(
        "all => all.map((one) => one.labels.length && one.labels[0].innerText)"
    )
    assert len(names) > 15 and all(names)
    elsewhere = visit("book/claims.html")
    assert elsewhere.locator("script[src*=estimate], link[href*=estimate]").count() == 0
