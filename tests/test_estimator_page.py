"""The calculator's JavaScript gives Python's results; the page's tables come from their sources."""

import itertools
import json
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest

from mangalab import estimate as e
from mangalab import sizing
from mangalab.book import estimate_pages as pages
from mangalab.book.project import BookError, Project, read_yaml
from mangalab.sizing import Plan, compute
from mangalab.sizing.devices import DEVICES

ROOT = Path(__file__).resolve().parents[1]
SHAPES = [
    sizing.SHAPES[n]
    for n in ("Llama-3-8B", "SmolLM2-135M", "all-MiniLM-L6-v2", "distilbert-base-uncased")
]
TALK = """
const s = require(process.argv[1]), read = require("fs").readFileSync(0, "utf8");
const told = JSON.parse(read).map(({plan, flops, price}) => {
  const m = s.memory(plan);
  return {...m, trained: s.trained(plan), parameters: s.parameters(plan.shape),
    flops: s.flopsPerToken(plan), bill: s.bill(plan, 1e6, flops, 0.4, price)};
});
console.log(JSON.stringify(told));
"""


def plans() -> list[Plan]:
    """Every choice at least once, alone and with each method that it is for."""
    found = []
    for shape, method in itertools.product(SHAPES, sizing.METHODS):
        if shape.family != "llama" and method in ("prompt", "prefix"):
            continue
        names = list(shape.linears)
        base = {
            "shape": shape,
            "method": method,
            "targets": (names[0], names[2]),
            "batch": 3,
            "length": 70,
        }
        variants = [
            {}, {"checkpointing": False}, {"precision": "fp32"}, {"precision": "fp32", "padded": True},
            {"targets": "all-linear", "precision": "fp32"}, {"targets": (names[3], names[-1])},
            {"targets": "all-linear", "adapter_dropout": True, "mask_bytes": 4},
            {"attention": "eager"}, {"dropout": True}, {"dropout": True, "attention": "eager"},
            {"dropout": True, "mask_bytes": 4, "precision": "fp32", "checkpointing": False},
            {"loss_tokens": 16}, {"double": False, "block": 128}, {"batch": 0}, {"step": "loop"},
            {"step": "foreach"}, {"step": "foreach", "sharding": "zero2", "devices": 4},
            {"overhead_bytes": 1e9, "new_tokens": 100, "rank": 3, "virtual_tokens": 7},
            *({"optimizer": name} for name in sizing.OPTIMIZERS),
            *({"sharding": name, "devices": 8} for name in ("zero1", "zero2", "zero3")),
        ]  # fmt: skip
        if method == "full":
            variants += [{"precision": "mixed"}, {"precision": "autocast"},
                         {"precision": "autocast", "checkpointing": False},
                         {"precision": "mixed", "sharding": "zero3", "devices": 8}]  # fmt: skip
        found += [Plan(**{**base, **variant}) for variant in variants]
    return found


def ask_node(cases: list[dict], script: Path = ROOT / "_static" / "estimate.js") -> list[dict]:
    """What the JavaScript says of cases."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not on the path; tests/test_browser_estimator.py asks the page instead")
    run = subprocess.run([node, "-e", TALK, str(script)], input=json.dumps(cases), capture_output=True,
                         text=True, check=True, timeout=60)  # fmt: skip
    return json.loads(run.stdout)


def close(told: object, wanted: object) -> bool:
    """Equal up to the last bits."""
    return told == pytest.approx(wanted, rel=1e-12, abs=1e-3)


def test_the_script_says_what_python_says():
    every = plans()
    device = e.DEVICES["A100-80"]
    cases = [{"plan": asdict(plan), "flops": device.flops, "price": 2.5} for plan in every]
    assert len(every) > 500
    for plan, told in zip(every, ask_node(cases), strict=True):
        wanted = sizing.memory(plan)
        assert told["peak"] == wanted.peak, plan
        assert close(told["total"], wanted.total), plan
        for phase, parts in wanted.phases.items():
            assert close({k: v for k, v in told["phases"][phase].items() if v},
                         {k: v for k, v in parts.items() if v}), (phase, plan)  # fmt: skip
        assert told["parameters"] == plan.shape.parameters
        assert told["trained"] == sizing.trained_parameters(plan)
        assert close(told["flops"], compute.flops_per_token(plan)), plan
        spent = sizing.bill(plan, 1e6, device, 0.4, 2.5)
        assert close([told["bill"]["hours"], told["bill"]["dollars"]], [spent.hours, spent.dollars])


def test_a_slip_in_the_script_is_found(tmp_path):
    text = (ROOT / "_static" / "estimate.js").read_text(encoding="utf8")
    wrong = text.replace("words * 12", "words * 8")
    assert wrong != text
    (tmp_path / "estimate.js").write_text(wrong, encoding="utf8")
    plan = Plan(SHAPES[0], "qlora", batch=2, length=64)
    told = ask_node([{"plan": asdict(plan), "flops": 1e12, "price": None}], tmp_path / "estimate.js")
    assert not close(told[0]["total"], sizing.memory(plan).total)


@pytest.mark.parametrize("kind", ["llama", "mistral", "bert", "distilbert"])
def test_the_script_reads_a_configuration_as_python_does(kind):
    import transformers as t

    config = {"llama": t.LlamaConfig, "mistral": t.MistralConfig, "bert": t.BertConfig,
              "distilbert": t.DistilBertConfig}[kind]().to_dict()  # fmt: skip
    node = shutil.which("node") or pytest.skip("node is not on the path")
    script = "const s = require(process.argv[1]); const read = require('fs').readFileSync(0, 'utf8');"
    script += "console.log(JSON.stringify(s.shapeOf(JSON.parse(read), 'own')))"
    command = [node, "-e", script, str(ROOT / "_static" / "estimate.js")]
    run = subprocess.run(
        command, input=json.dumps(config), capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(run.stdout) == asdict(sizing.shapes.Shape.from_config(config, "own"))


def test_published_plans_are_plans_and_near_what_was_measured():
    """Within a fifth; the page marks what is further off than 15 %."""
    found = read_yaml(ROOT / pages.PUBLISHED)
    assert {row["source"] for row in found["memory"] + found["speed"]} == set(found["sources"])
    ratios = [sizing.memory(pages.plan_of(row["plan"])).total / (row["value"] * row["unit"])
              for row in found["memory"]]  # fmt: skip
    assert all(0.8 < ratio < 1.2 for ratio in ratios)
    assert sum(abs(ratio - 1) < 0.1 for ratio in ratios) >= 9
    shares = [compute.flops_per_token(pages.plan_of(row["plan"])) * row["tokens_per_second"]
              / DEVICES[row["device"]].flops for row in found["speed"]]  # fmt: skip
    assert all(0.05 < share < 1 for share in shares)


def test_a_published_model_without_a_shape_is_named():
    with pytest.raises(BookError, match="'Llama-9' is no known shape"):
        pages.plan_of({"model": "Llama-9", "method": "lora"})


def test_our_runs_are_those_of_the_benchmark_and_near_the_estimate():
    """The estimates in the file are today's; four runs or more are near what the system gave them."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("bench", ROOT / "benchmarks" / "estimate_memory.py")
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    found = json.loads((ROOT / pages.MEASURED).read_text(encoding="utf8"))
    assert [case["case"] for case in found["cases"]] == list(bench.CASES)
    for case in found["cases"]:
        assert case["estimate"] == pytest.approx(sizing.memory(bench.CASES[case["case"]]).total)
    for size, least in zip(pages.SIZES, (10, 8, 4), strict=True):
        near = [abs(case["estimate"] / size(case) - 1) <= pages.LIMIT for case in found["cases"]]
        assert sum(near) >= least


def test_measured_table_counts_what_misses(tmp_path):
    project = Project(tmp_path)
    assert "Not measured here yet" in pages.measured(project)
    case = {"case": "x", "model": "<b>", "precision": "fp32", "batch": 1, "length": 2,
            "checkpointing": True, "estimate": 80, "tensors": 82, "peak": 200, "framework": 100,
            "mapped_peak": 190, "mapped_framework": 100}  # fmt: skip
    cases = [case, {**case, "peak": 185}]
    told = {"date": "2026-01-01", "machine": "m", "torch": "2", "cases": cases}
    path = tmp_path / pages.MEASURED
    path.parent.mkdir()
    path.write_text(json.dumps(told), encoding="utf8")
    html = pages.measured(project)
    assert "Of 2 runs the estimate is within 15% of the live tensors in 2" in html
    assert "resident memory in 2," in html and "slack in 1." in html and "&lt;b&gt;" in html
    assert html.count("est-far") == 1 and '<span class="est-far">0.80</span>' in html


def test_presets_are_pythons():
    plan = Plan(sizing.SHAPES["Llama-3-8B"], "qlora", targets="all-linear", batch=1, length=2048)
    assert f"<td>{sizing.memory(plan).total / e.GB:,.1f}</td>" in pages.presets()
    data = pages.calculator_data()
    assert set(data["shapes"]) == set(sizing.SHAPES) and set(data["devices"]) == set(DEVICES)
    assert Plan(**{**data["defaults"], "shape": SHAPES[0]}) == Plan(SHAPES[0])
