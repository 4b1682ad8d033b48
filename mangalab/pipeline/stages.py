"""The stages: each takes what earlier ones left in the folder and leaves one JSON file of its own.

A stage is done when its file exists and its key (settings, data, code that it uses, and the key of the
stage before) is what it would be now. So an interrupted run goes on where it stopped, and a changed
setting repeats only what depends on it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..data import _files, intents, leakage
from ..record import write_json

LAYERS = {"probe": 0, "top": 2, "full": 6}  # trained layers, from the top
FILES = ("intents_train.tsv", "intents_validation.tsv", "intents_test.tsv")
Told = Callable[[str], None]
Facts = dict[str, Any]


class PipelineError(RuntimeError):
    """Something that stops the pipeline; the message says what, and the way out."""


@dataclass(frozen=True)
class Settings:
    """What a run depends on. ``floor`` is an absolute accuracy, ``margin`` what may be lost."""

    method: str = "top"
    n_train: int = 2600
    epochs: int = 2
    lr: float = 2e-4
    seed: int = 0
    floor: float = 0.6
    margin: float = 0.02

    def __post_init__(self):
        if self.method not in LAYERS:
            raise PipelineError(f"no method {self.method!r}; choose one of: {', '.join(LAYERS)}")
        if not 0 < self.lr < 1 or self.epochs < 1 or self.n_train < 20 or not 0 <= self.floor <= 1:
            raise PipelineError(f"{self}: need 0 < lr < 1, epochs >= 1, n_train >= 20, 0 <= floor <= 1")


def check_data(folder: Path, settings: Settings, before: Facts) -> Facts:
    """Validate the three splits and write down their checksums: the version of the data."""
    if changed := [name for name in _files.changed_files() if name in FILES]:
        raise PipelineError(
            f"{', '.join(changed)} differ from their recorded checksums: if you meant that, run "
            "python tools/data_checksums.py --write"
        )
    texts = {split: [u.text for u in intents.load(split)] for split in ("train", "validation", "test")}
    for split in ("validation", "test"):
        if same := leakage.exact_duplicates(texts["train"], texts[split]):
            raise PipelineError(f"{len(same)} messages of {split} are in train, first {same[0]!r}")
    labels = {u.intents[0] for u in intents.load("train")}
    if missing := set(intents.INTENTS) - labels:
        raise PipelineError(f"train has no message of {sorted(missing)}")
    near = leakage.near_duplicates(texts["train"], texts["test"])
    counts = {split: len(found) for split, found in texts.items()}
    return {"rows": counts, "near_duplicates": len(near), "sha256": _sums()}


def train(folder: Path, settings: Settings, before: Facts) -> Facts:
    """Fine-tune and store the weights as safetensors beside what is needed to load them."""
    import torch
    from safetensors.torch import save_file

    from ..training.classify import ClassifyConfig, tokenize
    from ..training.classify import train as fit

    bert, tokenizer = _base()
    rows = sample(intents.load("train"), settings.n_train, settings.seed)
    targets = torch.tensor([intents.INTENTS.index(u.intents[0]) for u in rows])
    layers = LAYERS[settings.method]
    head_lr, passes = (3e-3, settings.epochs) if layers else (1e-2, 5 * settings.epochs)
    config = ClassifyConfig(layers, settings.lr, head_lr, epochs=passes, seed=settings.seed)
    made = fit(bert, tokenize(tokenizer, [u.text for u in rows]), targets, config)
    state = {k: v for k, v in made.model.state_dict().items() if ".embeddings." not in k}
    save_file(state, folder / "model.safetensors", metadata={"intents": " ".join(intents.INTENTS)})
    last = made.losses[-5:]
    return {
        "rows": len(rows), "steps": len(made.losses), "first_loss": made.losses[0],
        "last_loss": sum(last) / len(last), "sha256": _sha(folder / "model.safetensors"),
    }  # fmt: skip


def sample(rows: tuple, n: int, seed: int) -> list:
    """``n`` messages, one of each intent in turn, in a seeded order: a small sample misses none."""
    import torch

    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    groups = [[i for i in order if rows[i].intents[0] == name] for name in intents.INTENTS]
    turns = [group[k] for k in range(max(map(len, groups))) for group in groups if k < len(group)]
    return [rows[i] for i in sorted(turns[:n])]


def evaluate(folder: Path, settings: Settings, before: Facts) -> Facts:
    """Accuracy, macro recall and recall by intent on the test messages, with Wilson intervals."""
    from ..evaluation.classification import class_recalls
    from ..evaluation.intervals import wilson

    rows = intents.load("test")
    labels = [intents.INTENTS.index(u.intents[0]) for u in rows]
    logits = answers(folder, [u.text for u in rows])
    said = logits.argmax(1).tolist()
    right = [int(a == b) for a, b in zip(said, labels, strict=True)]
    recalls = class_recalls(labels, said, len(intents.INTENTS))
    whole = wilson(sum(right), len(right))
    named = zip(intents.INTENTS, recalls, strict=True)
    by_intent = {name: [r.value, r.low, r.high, r.n] for name, r in named}
    return {
        "n": len(right), "accuracy": [whole.value, whole.low, whole.high], "right": right,
        "macro_recall": sum(r.value for r in recalls) / len(recalls), "recall": by_intent,
    }  # fmt: skip


def gate(folder: Path, settings: Settings, before: Facts) -> Facts:
    """Hold the candidate against an absolute floor and, paired by message, against the champion."""
    from ..evaluation.intervals import paired_bootstrap

    now = before["evaluate"]
    champion = registry(folder)["champion"]
    found: Facts = {"champion": champion, "passes": True, "reason": "above the floor, no champion yet"}
    if now["accuracy"][0] < settings.floor:
        reason = f"accuracy {now['accuracy'][0]:.3f} is below the floor of {settings.floor:.3f}"
        return found | {"passes": False, "reason": reason}
    if champion:
        theirs = json.loads((folder / "registry" / champion / "facts.json").read_text("utf8"))
        gap = paired_bootstrap(now["right"], theirs["evaluate"]["right"], seed=settings.seed)
        passes = gap.low >= -settings.margin
        word = "no worse than" if passes else "not shown to be as good as"
        interval = f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"
        reason = f"{word} champion {champion}: {interval}, margin {settings.margin}"
        found |= {"passes": passes, "reason": reason, "gap": [gap.value, gap.low, gap.high]}
    return found


def spectrum(folder: Path, settings: Settings, before: Facts) -> Facts:
    """How large the update is and how many directions it has, matrix by matrix."""
    import numpy as np

    from ..spectrum import DenseUpdate, summary
    from ..training.encoder import LeanEncoder

    if not (layers := LAYERS[settings.method]):
        return {"matrices": 0}
    bert, _ = _base()
    old, new = LeanEncoder(bert).matrices(), _model(folder).encoder.matrices()
    trained = range(len(bert.encoder.layer) - layers, len(bert.encoder.layer))
    names = [n for n in old if int(n.split(".")[2]) in trained]
    rows = summary({n: DenseUpdate.between(old[n], new[n]) for n in names}, old)
    median = lambda key: float(np.median([row[key] for row in rows]))  # noqa: E731
    return {"matrices": len(rows), **{k: median(k) for k in ("relative", "stable_rank", "rank_90")}}


def register(folder: Path, settings: Settings, before: Facts) -> Facts:
    """Copy the candidate into the registry with its card; promote it if the gate let it pass."""
    book = registry(folder)
    version = f"v{len(book['versions']) + 1}"
    target = folder / "registry" / version
    target.mkdir(parents=True, exist_ok=True)
    (target / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    write_json(target / "facts.json", {"settings": asdict(settings), **before})
    (target / "MODEL_CARD.md").write_text(card(version, settings, before), encoding="utf8")
    passes = before["gate"]["passes"]
    book["versions"].append({"name": version, "passes": passes, "reason": before["gate"]["reason"]})
    book["champion"] = version if passes else book["champion"]
    write_json(folder / "registry" / "registry.json", book)
    return {"version": version, "promoted": passes, "champion": book["champion"]}


def try_out(folder: Path, settings: Settings, before: Facts) -> Facts:
    """Load the registered file afresh, answer a few validation messages, log them as service would."""
    target = folder / "registry" / before["register"]["version"]
    asked = [u.text for u in intents.load("validation")[:40]]
    again, fresh = answers(folder, asked), answers(target, asked)
    gap = float((again - fresh).abs().max())
    if gap > 1e-5:
        raise PipelineError(f"the registered weights answer otherwise: logits differ by {gap:.2g}")
    chances = fresh.softmax(1)
    logged = [
        {"text": t, "intent": intents.INTENTS[int(p.argmax())], "confidence": round(float(p.max()), 4)}
        for t, p in zip(asked, chances, strict=True)
    ]
    lines = [json.dumps(one, ensure_ascii=False) for one in logged]
    (target / "requests.jsonl").write_text("\n".join(lines) + "\n", encoding="utf8")
    unsure = sum(float(p.max()) < 0.5 for p in chances)
    return {"requests": len(asked), "unsure": unsure, "largest_difference": gap}


STAGES: dict[str, Callable[[Path, Settings, Facts], Facts]] = {
    "data": check_data, "train": train, "evaluate": evaluate, "gate": gate,
    "spectrum": spectrum, "register": register, "try_out": try_out,
}  # fmt: skip


def run(folder: Path, settings: Settings, tell: Told = print) -> Facts:
    """All stages in order; facts by stage. What is done already is told and not done again."""
    folder.mkdir(parents=True, exist_ok=True)
    key, facts = "", {}
    for number, (name, stage) in enumerate(STAGES.items(), 1):
        key = _digest([key, name, _used(name, settings), _code()])
        path = folder / f"{number}-{name}.json"
        done = _read(path)
        if done.get("key") == key and (name != "train" or (folder / "model.safetensors").exists()):
            tell(f"{number}/{len(STAGES)} {name:<9} done before")
        else:
            tell(f"{number}/{len(STAGES)} {name:<9} ...")
            started = time.perf_counter()
            done = {"key": key, "facts": stage(folder, settings, facts)}
            write_json(path, done)
            tell(f"{number}/{len(STAGES)} {name:<9} {time.perf_counter() - started:.1f} s")
        facts[name] = done["facts"]
    (folder / "REPORT.md").write_text(
        card(facts["register"]["version"], settings, facts), encoding="utf8"
    )
    return facts


def registry(folder: Path) -> Facts:
    """Versions so far and the champion's name, None before the first promotion."""
    return _read(folder / "registry" / "registry.json") or {"versions": [], "champion": None}


def answers(folder: Path, texts: list[str]):
    """Logits (n, intents) of the model stored in ``folder``."""
    from ..training.classify import predict, tokenize

    _, tokenizer = _base()
    return predict(_model(folder), tokenize(tokenizer, texts)).logits


def card(version: str, settings: Settings, facts: Facts) -> str:
    """Model card: what it is, what it was trained on, what it does and does not."""
    e, d, t = facts["evaluate"], facts["data"], facts["train"]
    rows = [
        f"| {name} | {v:.2f} [{low:.2f}, {high:.2f}] | {n} |"
        for name, (v, low, high, n) in e["recall"].items()
    ]
    said = ", ".join(f"{k}={v}" for k, v in asdict(settings).items())
    return "\n".join([
        f"# Intent router {version}", "",
        f"MiniLM with a linear head over {len(intents.INTENTS)} intents. Settings: {said}.",
        f"Trained on {t['rows']:,} of {d['rows']['train']:,} messages, {t['steps']} steps.", "",
        f"Gate: {'passed' if facts['gate']['passes'] else 'refused'}, {facts['gate']['reason']}.", "",
        "| intent | recall [95 %] | n |", "|---|---|---|", *rows, "",
        "Accuracy on {} test messages {:.3f} [{:.3f}, {:.3f}].".format(e["n"], *e["accuracy"]),
        "One intent a message; messages outside the ten intents get one of the ten all the same.",
        f"Data: {', '.join(f'{k} {v[:12]}' for k, v in d['sha256'].items())}.", "",
    ])  # fmt: skip


def _base():
    from ..models import load_encoder

    bert, tokenizer = load_encoder()
    return bert.requires_grad_(False), tokenizer


def _model(folder: Path):
    from safetensors.torch import load_file

    from ..training.classify import Classifier
    from ..training.encoder import LeanEncoder

    model = Classifier(LeanEncoder(_base()[0]), len(intents.INTENTS))
    missing, unknown = model.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    if unknown or any(".embeddings." not in name for name in missing):
        raise PipelineError(f"{folder} holds no router of this shape: remove the folder and run again")
    return model.eval()


def _used(name: str, settings: Settings) -> Facts:
    """What a stage depends on; later ones depend on it through the key before."""
    every = asdict(settings)
    if name == "data":
        return {"files": _sums()}
    if name == "train":
        return {k: every[k] for k in ("method", "n_train", "epochs", "lr", "seed")}
    return {k: every[k] for k in ("floor", "margin")} if name == "gate" else {}


def _sums() -> dict[str, str]:
    now = _files.checksums()
    return {name: now[name] for name in FILES}


def _code() -> str:
    package = Path(__file__).parents[1]
    used = [Path(__file__), package / "training" / "classify.py", package / "training" / "encoder.py"]
    return _digest([_sha(path) for path in used])


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _read(path: Path) -> Facts:
    try:
        return json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError):
        return {}
