"""What tells a wrong answer of the model, answers judged by the value they name: every readout of `mia diagnose`.

    python research/smol/readouts.py RUN --facts FOLDER/facts.json --samples 300 --model MODEL

`RUN` is a folder that `mia run` or `mia diagnose` composed samples in. Writes research/smol/results/readouts.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import scenes
from mia_attention import ScoreSettings
from mia_attention.measure import layer_profile
from mia_attention.scoring import every_readout
from mia_augment import Sample
from mia_augment.images import picture_opener
from mia_augment.statistics import grouped_auroc_interval, scored_groups
from mia_augment.storage import read_jsonl, write_json
from mia_cli.loading.load import load
from mia_select import SelectSettings
from mia_select.diagnosis import AnsweredSample, ReadoutRatios, choose_samples, diagnose, find_readout, with_references

Facts = dict[str, dict[str, str]]
RESULTS = Path(__file__).parent / "results"


def by_value(kind: str, answer: str) -> str:
    """The values that an answer names; where there are none, the answer."""
    return "|".join(sorted(scenes.values_named(kind, answer))) or answer


def judged(sample: Sample, response: str, alone: str, facts: Facts) -> AnsweredSample:
    """The same answers, reduced to the values they name, so that equal means right."""
    kind, value = (facts[sample.source.ids[sample.target]][name] for name in ("kind", "value"))
    others = [None if answer is None else by_value(kind, answer) for answer in sample.source.answers]
    source = sample.source.model_copy(update={"answers": others})
    sample = sample.model_copy(update={"answer": value, "source": source})
    return AnsweredSample(sample, by_value(kind, response), by_value(kind, alone))


def layer_table(
    samples: Sequence[Sample], model: Any, processor: Any, settings: ScoreSettings, run: Path, facts: Facts
) -> dict:
    """AUROC of a low ratio for answers wrong by value, layer by layer, compared within each format and number."""
    profile = layer_profile(samples, model, processor, settings, open_image=picture_opener(run / "augment"))
    asked = [facts[sample.source.ids[sample.target]] for sample, _, _ in profile]
    wrong = [not scenes.right(fact["kind"], fact["value"], said) for fact, (_, said, _) in zip(asked, profile, strict=True)]
    buckets = [(sample.format, sample.parts) for sample, _, _ in profile]
    table = {}
    for layer in profile[0][2]:
        ratios = [attention[layer].ratio for _, _, attention in profile]
        found = grouped_auroc_interval(scored_groups([None if r is None else -r for r in ratios], wrong, buckets))
        if found is not None:
            table[layer] = [round(value, 3) for value in (found.value, found.low, found.high)]
    return {"rows": settings.rows, "samples": len(profile), "wrong": sum(wrong), "layers": table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--facts", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument(
        "--layers", nargs="+", metavar="ROWS", help="only attention by layer, of these rows, into layers-ROWS.json"
    )
    args = parser.parse_args()
    facts = json.loads(args.facts.read_text())
    folder = args.run / "augment"
    samples = choose_samples(read_jsonl(folder / "samples.jsonl", Sample), args.samples, 0)
    settings = ScoreSettings(max_new_tokens=16, batch_size=16)
    model, processor = load(args.model, args.dtype)
    if args.layers:
        tables = [
            layer_table(samples, model, processor, settings.model_copy(update={"rows": r}), args.run, facts)
            for r in args.layers
        ]
        write_json(RESULTS / f"layers-{'-'.join(args.layers)}.json", tables)
        return print(json.dumps(tables))
    read = every_readout(
        samples, model, processor, settings, open_image=picture_opener(folder), thorough=False,
        progress=lambda done, *_: print(done, flush=True),
    )  # fmt: skip
    asked = [judged(s, read.responses[s.id], own, facts) for s, own in zip(read.samples, read.alone, strict=True)]
    readings = with_references([ReadoutRatios(*each) for each in read.readouts], asked, read.sureness, read.states)
    configured = find_readout(readings, read.configured, settings.rows, settings.value_weighted)
    found = diagnose(asked, readings, SelectSettings().thresholds, model="smol", configured=configured)
    write_json(RESULTS / "readouts.json", found.model_dump(mode="json"))
    print(found.model_dump_json(indent=1, exclude={"readouts"}))


if __name__ == "__main__":
    main()
