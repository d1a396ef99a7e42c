"""Six small comparisons, each group with "ours" and a "peer" in the same run: `uv run pytest benchmarks/`, see README.md.

Both ways of a group are given the same inputs, and where they compute the same numbers, these are compared first.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import bench_attention
import bench_augment
import bench_select
import bench_train
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mia_augment.records import RejectedAnswer, Sample
from mia_augment.storage import read_jsonl
from mia_dpo_train.data.encode import PairBatch, PairEncoder, collate
from mia_dpo_train.logps.routes import packed_logps
from mia_dpo_train.losses import training_loss
from mia_dpo_train.models.facts import model_facts
from mia_dpo_train.settings import TrainSettings
from mia_select import auroc, auroc_interval
from sklearn.metrics import roc_auc_score
from torch import Tensor

WAYS = ("ours", "peer")
ROUNDS = {"rounds": 5, "warmup_rounds": 1}
ATTENTION = argparse.Namespace(images=2, layers=4, width=128, tokens=8)
TRAINING = argparse.Namespace(hidden=128, layers=4, pixels=168, images=3)
SEVERAL = argparse.Namespace(hidden=256, layers=6, pixels=224, images=3)
SCORES = 20_000


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.benchmark(group="compose: 24 grids from JPEGs of 640 x 480, one process")
def test_compose(benchmark: Any, way: str, tmp_path: Path) -> None:
    settings = bench_augment.COMPOSED["grid"]
    bench_augment.write_photographs(tmp_path / "coco", 24, (640, 480), distinct=24)
    source = bench_augment.write_rows(tmp_path, 24, 24)
    bench_augment.product(source, tmp_path, tmp_path / "out", settings, 1)
    samples = list(read_jsonl(tmp_path / "out" / "samples.jsonl", Sample))
    if way == "ours":
        benchmark.pedantic(bench_augment.product, (source, tmp_path, tmp_path / "out", settings, 1), **ROUNDS)
    else:
        benchmark.pedantic(bench_augment.peer, (samples, tmp_path, tmp_path / "peer", settings.pictures.jpeg_quality), **ROUNDS)


@pytest.fixture(scope="module")
def llava() -> tuple[Any, dict[str, Any]]:
    return bench_attention.build(ATTENTION)


@pytest.mark.parametrize("way", [*WAYS, "plain"])
@pytest.mark.benchmark(group="capture: one layer's attention of 8 generated tokens behind 2 pictures (plain: the answer only)")
def test_capture(benchmark: Any, llava: tuple[Any, dict[str, Any]], way: str) -> None:
    named = {"ours": "captured", "peer": "eager", "plain": "plain"}
    with torch.inference_mode():
        runs = {name: bench_attention.runner(named[name], *llava, ATTENTION) for name in named}
        prompt = llava[1]["input_ids"].shape[1]
        torch.testing.assert_close(runs["ours"]()[:, :prompt], runs["peer"](), atol=1e-5, rtol=0)
        benchmark.pedantic(runs[way], **ROUNDS)


def two_sequences(model: Any, batch: PairBatch) -> Tensor:
    """What one would write down first: each answer behind its own prompt, every position scored. One pair; (2, 1)."""
    sides = []
    for answer in (batch.chosen, batch.rejected):
        tokens = torch.cat([batch.prompt, answer], 1)
        logps = model(input_ids=tokens, use_cache=False, **batch.vision).logits.float().log_softmax(-1)
        start = batch.prompt.shape[1] - 1
        sides.append(logps[:, start:-1].gather(-1, answer[..., None]).sum((1, 2)))
    return torch.stack(sides)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.benchmark(group="packed step: DPO forward and backward of one pair of 3 pictures, reference log-probs stored")
def test_packed_step(benchmark: Any, way: str) -> None:
    model, processor = bench_train.model_and_processor(TRAINING)
    model.model.vision_tower.requires_grad_(False)
    [pair] = bench_train.preference_pairs(1, TRAINING.images)
    batch = collate([PairEncoder(processor, lambda name: bench_train.picture(name, TRAINING.pixels))(pair)])
    assert torch.stack([batch.chosen_mask, batch.rejected_mask]).all(), "the peer knows no padding"
    facts = model_facts(model)
    ways = {"ours": lambda: packed_logps(model, facts, batch), "peer": lambda: two_sequences(model, batch)}
    with torch.no_grad():
        reference = ways["ours"]()
        torch.testing.assert_close(reference, ways["peer"](), atol=1e-3, rtol=1e-4)

    def step() -> None:
        model.zero_grad()
        gain = ways[way]() - reference
        (-F.logsigmoid(0.1 * (gain[0] - gain[1]))).mean().backward()

    benchmark.pedantic(step, **ROUNDS)


@pytest.mark.parametrize("way", ["two", "four", "peer"])
@pytest.mark.benchmark(group="several rejected: packed step of one prompt with 2 or 4 rejected answers (peer: 4 plain pairs)")
def test_several_rejected(benchmark: Any, way: str) -> None:
    model, processor = bench_train.model_and_processor(SEVERAL)
    model.model.vision_tower.requires_grad_(False)
    [pair] = bench_train.preference_pairs(1, SEVERAL.images)
    texts = [" ".join(bench_train.WORDS[40 * k : 40 * k + bench_train.ANSWER_WORDS]) for k in range(1, 5)]
    several = {
        count: pair.model_copy(
            update={"rejected": texts[0], "more_rejected": [RejectedAnswer(text=text) for text in texts[1:count]]}
        )
        for count in (2, 4)
    }
    encode = PairEncoder(processor, lambda name: bench_train.picture(name, SEVERAL.pixels))
    plain = [pair.model_copy(update={"rejected": text}) for text in texts]
    batches = {"two": [several[2]], "four": [several[4]], "peer": plain}
    batch, facts, settings = collate([encode(each) for each in batches[way]]), model_facts(model), TrainSettings()
    with torch.no_grad():
        reference = packed_logps(model, facts, batch)

    def step() -> None:
        model.zero_grad()
        found = packed_logps(model, facts, batch)
        step_of = {"pairs": len(batch.ids), "chosen_tokens": 1}
        training_loss(found, reference, batch.lengths, settings=settings, **step_of).loss.backward()

    benchmark.pedantic(step, **ROUNDS)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.benchmark(group="selection: 2,000 scored samples from file to files")
def test_selection(benchmark: Any, way: str, tmp_path: Path) -> None:
    source, out = tmp_path / "scored.jsonl", tmp_path / "out"
    bench_select.make_file(source, 2000)
    out.mkdir()
    if way == "peer":
        benchmark.pedantic(bench_select.peer, (source, out), **ROUNDS)
        return
    seeds = iter(range(100))  # a finished folder would be left alone: another seed makes it out of date
    benchmark.pedantic(lambda: bench_select.ours(source, out, {"seed": next(seeds)}), **ROUNDS)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.benchmark(group=f"statistics: AUROC of {SCORES} scores; ours with DeLong's interval, scikit-learn without one")
def test_statistics(benchmark: Any, way: str) -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(SCORES) < 0.3
    scores = rng.normal(size=SCORES) + labels
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    benchmark.pedantic(
        (lambda: auroc_interval(scores, labels)) if way == "ours" else (lambda: roc_auc_score(labels, scores)), **ROUNDS
    )
