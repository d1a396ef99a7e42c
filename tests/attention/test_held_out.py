"""Answers kept in a file: asked once, continued after a kill in the same batches, asked anew when the model changes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from mia_attention import Asking, Options, answer_all
from mia_attention.scoring.held_out import BATCHES_PER_SAVE
from mia_augment.records import Region, Sample, Skipped, Source
from PIL import Image

BATCH = 2
CHUNK = BATCH * BATCHES_PER_SAVE
ASKING = Asking(open_image=Image.open, batch_size=BATCH, max_new_tokens=5)


def sample(number: int) -> Sample:
    return Sample(
        id=str(number), format="single", images=["a.png"], prompt="<image>\nWhat?", answer="A.", target=0,
        regions=[Region(image=0, label="Image1")], source=Source(ids=["a"], paths=["a.png"], question="What?"),
    )  # fmt: skip


class Killed(BaseException):
    pass


class Model:
    """Answers `<name> <id>`, notes the groups it was asked, and dies before the group `dies_at`."""

    def __init__(self, name: str, dies_at: int | None = None) -> None:
        self.name, self.dies_at, self.groups = name, dies_at, []

    def load(self) -> tuple[Model, None]:
        return self, None


def respond(
    prompts, model: Model, processor, *, open_image, batch_size, max_new_tokens, within=None
) -> Iterator[SimpleNamespace]:
    if model.dies_at == len(model.groups):
        raise Killed
    model.groups.append([prompt.id for prompt in prompts])
    return iter([SimpleNamespace(text=f"{model.name} {prompt.id}", perplexity=1.5) for prompt in prompts])


@pytest.fixture(autouse=True)
def _fake_generation(monkeypatch):
    monkeypatch.setattr("mia_attention.answering.responses.try_respond", respond)


def ask(model: Model, path: Path, key: str = "k", count: int = 3 * CHUNK + 1) -> list[str]:
    samples = [sample(number) for number in range(count)]
    return [answer.response for answer in answer_all(samples, model.load, path, key, ASKING, progress=lambda *_: None)]


def test_answers_stand_in_the_samples_order(tmp_path):
    model = Model("m")
    assert ask(model, tmp_path / "base.jsonl") == [f"m {number}" for number in range(3 * CHUNK + 1)]
    assert [len(group) for group in model.groups] == [CHUNK, CHUNK, CHUNK, 1]


def test_answers_are_asked_once(tmp_path):
    ask(Model("m"), tmp_path / "base.jsonl")
    second = Model("other")
    assert ask(second, tmp_path / "base.jsonl")[0] == "m 0"
    assert second.groups == []


def test_another_model_is_asked_anew(tmp_path):
    ask(Model("m"), tmp_path / "base.jsonl")
    assert ask(Model("new"), tmp_path / "base.jsonl", key="other")[0] == "new 0"


@pytest.mark.parametrize("torn", ["", '{"id": "16", "resp', '{"id": "16", "response": "x", "perplexity": null}\n'])
def test_a_killed_model_goes_on_in_the_same_batches(tmp_path, torn):
    path = tmp_path / "base.jsonl"
    with pytest.raises(Killed):
        ask(Model("m", dies_at=1), path)
    assert not path.exists()
    with (tmp_path / "base.journal" / "0.jsonl").open("a") as journal:
        journal.write(torn)
    second = Model("m")
    ask(second, path)
    assert second.groups[0][0] == str(CHUNK)
    ask(Model("m"), tmp_path / "undisturbed.jsonl")
    assert path.read_bytes() == (tmp_path / "undisturbed.jsonl").read_bytes()
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".jsonl", ".jsonl", ".key", ".key"]


def test_a_journal_of_another_model_is_not_continued(tmp_path):
    with pytest.raises(Killed):
        ask(Model("m", dies_at=2), tmp_path / "base.jsonl")
    assert ask(Model("new"), tmp_path / "base.jsonl", key="other")[0] == "new 0"


def test_what_is_kept_can_be_read(tmp_path):
    ask(Model("m"), tmp_path / "base.jsonl", count=1)
    assert json.loads((tmp_path / "base.jsonl").read_text()) == {"id": "0", "response": "m 0", "perplexity": 1.5}


def test_what_cannot_be_asked_is_kept_with_its_reason(tmp_path, monkeypatch):
    def respond(prompts, *_, **__):
        yield from (
            Skipped(id=p.id, reason="odd") if p.id == "1" else SimpleNamespace(text="x", perplexity=1.5) for p in prompts
        )

    monkeypatch.setattr("mia_attention.answering.responses.try_respond", respond)
    assert ask(Model("m"), tmp_path / "base.jsonl", count=3) == ["x", "", "x"]
    lines = [json.loads(line) for line in (tmp_path / "base.jsonl").read_text().splitlines()]
    assert lines[1] == {"id": "1", "response": "", "perplexity": None, "skipped": "odd"}
    assert "skipped" not in lines[0]


def test_of_a_question_with_options_the_likeliest_is_the_answer(tmp_path, monkeypatch):
    """C is likeliest in sample 1; in 2 two options are exactly as likely, so nothing is chosen; 0 and 3 are asked in words."""
    logps = {"1": {"A": -3.0, "B": -2.0, "C": -1.0}, "2": {"A": -1.0, "B": -2.0, "C": -1.0}}

    def likelihoods(prompts, answers, model, processor, *, open_image, batch_size):
        for prompt, texts in zip(prompts, answers, strict=True):
            yield [SimpleNamespace(logp=logps[prompt.id][text], tokens=1) for text in texts]

    monkeypatch.setattr("mia_attention.answering.likelihood.try_likelihoods", likelihoods)

    def options(asked: Sample) -> Options | None:
        return Options("ABC", likeliest) if asked.id in logps else None

    def likeliest(found):
        best = [index for index, each in enumerate(found) if each.logp == max(one.logp for one in found)]
        return best[0] if len(best) == 1 else None

    samples = [sample(number) for number in range(4)]
    for asking, wanted in [(replace(ASKING, options=options), ["m 0", "C", "", "m 3"]), (ASKING, ["m 0", "m 1", "m 2", "m 3"])]:
        path = tmp_path / f"{wanted[1]}.jsonl"
        found = answer_all(samples, Model("m").load, path, "k", asking, progress=lambda *_: None)
        assert [(answer.id, answer.response) for answer in found] == list(zip("0123", wanted, strict=True))
