"""What ground truths are to the pairs of an experiment made before: `uv run python research/testbed/label_free.py NAME`.

Of the samples scored under work/NAME: how often the model's own answer about the target alone says what the hidden ground truth
says, how well its view of single pictures tells wrong answers, and which pairs each arm gets with the ground truths as they
are, in other words, and exchanged between samples. Writes results/NAME-pairs.json; no model runs.
"""

from __future__ import annotations

import argparse
import hashlib
import random
from collections.abc import Sequence
from typing import Any

from experiment import HERE, reword
from mia_augment import PreferencePair, ScoredSample, same_answer
from mia_augment.statistics import auroc_interval
from mia_augment.storage import read_jsonl, write_json
from mia_cli.config.schema import load_config
from mia_select.ablation import VARIANTS
from mia_select.ablation.variants import pool

ARMS = ("full", "label_free", "label_free_attention", "label_free_no_rule")


def answered_by(samples: Sequence[ScoredSample], truths: Sequence[str]) -> list[ScoredSample]:
    return [sample.model_copy(update={"answer": truth}) for sample, truth in zip(samples, truths, strict=True)]


def digest(pairs: Sequence[PreferencePair]) -> str:
    return hashlib.sha256("\n".join(pair.model_dump_json() for pair in pairs).encode()).hexdigest()[:16]


def told(samples: Sequence[ScoredSample]) -> dict[str, Any]:
    """How well the readout tells wrong answers, all formats and numbers of images together within each."""
    buckets: dict[str, list[ScoredSample]] = {}
    for sample in samples:
        buckets.setdefault(f"{sample.format}/{len(sample.regions)}", []).append(sample)
    found = {}
    for name, members in sorted(buckets.items()):
        ratios = [-(member.attention.ratio or 0.0) for member in members]
        value = auroc_interval(ratios, [not same_answer(member.response, member.answer) for member in members])
        found[name] = None if value is None else round(value.value, 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    name = parser.parse_args().name
    folder = HERE / "work" / name
    config = load_config(folder / "experiment.yaml")
    by_run, alone = (
        list(read_jsonl(folder / "run" / place / "scored.jsonl", ScoredSample)) for place in ("score", "ablate/measured/alone")
    )
    truths = [sample.answer for sample in by_run]
    truth_of = {sample.id: sample.answer for sample in by_run}
    exchanged = random.Random(0).sample(truths, len(truths))
    ways = {"as they are": truths, "in other words": [reword(t, "", 1.0) for t in truths], "exchanged": exchanged}
    arms: dict[str, Any] = {}
    for variant in (variant for variant in VARIANTS if variant.name in ARMS):
        samples = alone if variant.readout == "alone" else by_run
        pools = {way: pool(answered_by(samples, answers), config.select, variant).pairs for way, answers in ways.items()}
        arms[variant.name] = {way: {"pairs": len(pairs), "digest": digest(pairs)} for way, pairs in pools.items()}
        right = sum(same_answer(pair.chosen, truth_of[pair.id.split("~")[0]]) for pair in pools["as they are"])
        arms[variant.name]["chosen right"] = right
    result = {
        "samples": len(by_run),
        "answered rightly": sum(same_answer(sample.response, sample.answer) for sample in by_run),
        "own answer equals the ground truth": sum(same_answer(s.own_answer or "", s.answer) for s in by_run),
        "auroc": {str(by_run[0].attention.layer): told(by_run), "alone": told(alone)},
        "arms": arms,
    }
    write_json(HERE / "results" / f"{name}-pairs.json", result)
    print(result)


if __name__ == "__main__":
    main()
