"""The server's answers to everything a client can do wrong, with an engine that is not a model."""

import threading
from pathlib import Path

import pytest

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient

from mangalab.book.commands.serve import named
from mangalab.book.project import BookError
from mangalab.serving.app import Limits, create_app
from mangalab.serving.engine import AdapterError, Answer, check_adapter


class Echo:
    """Says each prompt back under its adapter's name; waits for ``gate`` before it answers."""

    names = ("base", "tone")

    def __init__(self):
        self.gate, self.batches = threading.Event(), []
        self.gate.set()

    def tokens(self, prompt):
        return len(prompt.split())

    def answer(self, requests):
        self.gate.wait(10)
        self.batches.append(len(requests))
        if any(r.prompt == "break" for r in requests):
            raise RuntimeError("planted")
        return [Answer(f"{r.adapter}: {r.prompt}", self.tokens(r.prompt), 1) for r in requests]


@pytest.fixture
def engine():
    return Echo()


def client(engine, **limits):
    return TestClient(create_app(engine, Limits(**limits)))


def ask(c, adapter="tone", prompt="hello", **more):
    return c.post("/generate", json={"adapter": adapter, "prompt": prompt, **more})


def test_answers_under_the_named_adapter(engine):
    with client(engine) as c:
        assert c.get("/adapters").json() == {"adapters": ["base", "tone"]}
        assert ask(c).json()["text"] == "tone: hello"
        assert ask(c, "base").json()["text"] == "base: hello"


def test_unknown_adapter_is_a_404_that_lists_the_known_ones(engine):
    with client(engine) as c:
        response = ask(c, "pirate")
        assert response.status_code == 404
        assert response.json()["detail"]["known"] == ["base", "tone"]


def test_limits_have_their_own_codes(engine):
    with client(engine, body_bytes=200, prompt_tokens=5, new_tokens=8) as c:
        assert ask(c, prompt="a b c d e f").status_code == 422
        assert ask(c, max_new_tokens=9).status_code == 422
        assert ask(c, max_new_tokens=0).status_code == 422
        assert ask(c, prompt="").status_code == 422
        assert ask(c, wrong=1).status_code == 422
        assert ask(c, prompt="x" * 300).status_code == 413
        assert engine.batches == []


def test_a_body_without_stated_length_is_counted_while_it_arrives(engine):
    with client(engine, body_bytes=100) as c:
        pieces = (b'{"adapter": "tone", "prompt": "' + b"x" * 60, b"x" * 60 + b'"}')
        response = c.post("/generate", content=iter(pieces))
        assert response.status_code == 413


def test_a_full_line_is_a_429_and_the_others_are_answered(engine):
    engine.gate.clear()
    codes = []
    with client(engine, waiting=2, batch=1) as c:
        threads = [threading.Thread(target=lambda: codes.append(ask(c).status_code)) for _ in range(2)]
        for thread in threads:
            thread.start()
        while c.get("/health").json()["waiting"] < 2:
            pass
        refused = ask(c)
        engine.gate.set()
        for thread in threads:
            thread.join(10)
    assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
    assert codes == [200, 200]


def test_too_slow_is_a_503_and_a_fault_of_the_model_a_500(engine):
    with client(engine, seconds=0.2) as c:
        engine.gate.clear()
        assert ask(c).status_code == 503
        engine.gate.set()
        assert ask(c, prompt="break").status_code == 500
        assert ask(c).status_code == 200  # it goes on serving


def test_waiting_requests_share_a_pass(engine):
    engine.gate.clear()
    with client(engine, waiting=8, batch=8) as c:
        threads = [threading.Thread(target=ask, args=(c,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        while c.get("/health").json()["waiting"] < 4:
            pass
        engine.gate.set()
        for thread in threads:
            thread.join(10)
    assert sum(engine.batches) == 4 and len(engine.batches) <= 2


def test_pickled_and_foreign_adapters_are_refused(tmp_path):
    with pytest.raises(AdapterError, match=r"no adapter_config\.json"):
        check_adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "IA3"}', encoding="utf8")
    (tmp_path / "adapter_model.bin").write_bytes(b"pickle")
    with pytest.raises(AdapterError, match="never loaded"):
        check_adapter(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(AdapterError, match="IA3"):
        check_adapter(tmp_path)


def test_folders_are_named_one_by_one_or_together(tmp_path):
    for name in ("json", "tone"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text("{}", encoding="utf8")
    assert named([str(tmp_path)]) == {n: tmp_path / n for n in ("json", "tone")}
    assert named(["x=some/where"]) == {"x": Path("some/where")}
    with pytest.raises(BookError, match="no adapters there"):
        named([str(tmp_path / "json")])
