"""What tells a wrong answer? Every readout of a model, and the gradient as an upper reference.

    uv run python research/testbed/readouts.py embedded research/testbed/work/1-300 --samples 800

Writes research/testbed/results/readouts-MODEL.json: what `mia diagnose --thorough` finds on test pictures, and the AUROC of
gradient x attention: with A the attention of the rows that predict the answer and L the answer's log-probability, the sum
over layers and heads of relu(A * dL/dA) (Chefer et al., 2021, without their product over layers). It needs eager attention
and a backward pass, so it is no readout for real models, but says how much there is to be read.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from experiment import HERE
from mia_attention import ScoreSettings
from mia_attention.layers import score_layer
from mia_attention.scoring import Scorer
from mia_attention.teacher import append_answers
from mia_augment.files import image_folders, read_jsonl, resolve_image, write_json
from mia_augment.pictures import open_picture
from mia_augment.records import Sample
from mia_augment.stage import augment_dataset
from mia_cli.config import load_config
from mia_cli.console import Display
from mia_cli.diagnose import ask, choose_samples, diagnose
from mia_cli.drawn_data import ROWS
from mia_cli.models import load
from mia_cli.quickstart import prepare
from PIL import Image


def gradient_ratios(
    samples: Sequence[Sample], model: Any, processor: Any, open_image: Callable[[str], Image.Image]
) -> list[Any]:
    """Share of gradient x attention on the target, of each sample's own answer."""
    settings = ScoreSettings(layer=0, rows="predicting", disturb=False, batch_size=1, max_new_tokens=12)
    scorer = Scorer(model, processor, settings, open_image)
    ratios = []
    for sample in samples:
        prepared = scorer.prepare([sample])
        model.set_attn_implementation("sdpa")
        (response, _), *_ = scorer.read(prepared)
        model.set_attn_implementation("eager")
        inputs, lengths = append_answers(prepared.encoded, [response.tokens])
        output = model(**inputs, use_cache=False, output_attentions=True)
        first, tokens = int(lengths[0]), torch.tensor(response.tokens)
        logps = output.logits[0, first - 1 : first - 1 + len(tokens)].log_softmax(-1)
        gradients = torch.autograd.grad(logps.gather(1, tokens[:, None]).sum(), output.attentions)
        told = sum((a * g).clamp_min(0).sum(1) for a, g in zip(output.attentions, gradients, strict=True))
        spread = told[:, first - 1 : first - 1 + len(tokens), :first].mean(1).detach()
        spread = spread / spread.sum().clamp_min(1e-12)
        ratios.append(scorer.attention(0, prepared, spread).ratio)
    model.set_attn_implementation("sdpa")
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--samples", type=int, default=800)
    parser.add_argument("--gradient", type=int, default=400, help="samples for the gradient")
    args = parser.parse_args()
    folder = HERE / "work" / "readouts"
    file = prepare(folder, Display(), pictures=10, test_pictures=300, per_bucket=1, seed=11, model="embedded")
    config = load_config(file)
    augment_dataset(folder / "data/test" / ROWS, folder / "data/test", folder / "samples", config.augment, seed=11)
    samples = choose_samples(read_jsonl(folder / "samples" / "samples.jsonl", Sample), args.samples, 0)
    folders = image_folders(folder / "samples")

    def open_image(name: str) -> Image.Image:
        return open_picture(resolve_image(name, folders))

    for name in args.models:
        model, processor = load(name)
        asked, readings = ask(samples, model, processor, config, open_image, thorough=True, progress=lambda done, total: None)
        found = diagnose(asked, readings, config, model=Path(name).name)
        some = asked[:: max(1, len(asked) // args.gradient)]
        ratios = gradient_ratios([entry.sample for entry in some], model, processor, open_image)
        groups = [f"{entry.sample.format}/{entry.sample.parts}" for entry in some]
        wrong = [not entry.right for entry in some]
        gradient = score_layer("gradient", ratios, wrong, groups)
        by_group = {
            group: score.auroc
            for group in sorted(set(groups))
            if (part := [i for i, g in enumerate(groups) if g == group])
            and (score := score_layer("g", [ratios[i] for i in part], [wrong[i] for i in part], [group] * len(part)))
        }
        per_bucket = {
            f"{reading.rows}/{reading.layer}/{'weighted' if reading.value_weighted else 'raw'}": _by_bucket(
                reading.ratios, asked
            )
            for reading in readings
        }
        result = {
            **found.model_dump(mode="json"),
            "gradient": vars(gradient) if gradient else None,
            "gradient_by_bucket": by_group,
            "by_bucket": per_bucket,
        }
        write_json(HERE / "results" / f"readouts-{Path(name).name}.json", result)
        print(name, "best", found.best, "gradient", gradient, flush=True)


def _by_bucket(ratios: Sequence[float | None], asked: Sequence[Any]) -> dict[str, float]:
    """AUROC within each format and number of images."""
    names = [f"{entry.sample.format}/{entry.sample.parts}" for entry in asked]
    result = {}
    for name in sorted(set(names)):
        part = [i for i, other in enumerate(names) if other == name]
        score = score_layer("x", [ratios[i] for i in part], [not asked[i].right for i in part], [name] * len(part))
        if score is not None:
            result[name] = round(score.auroc, 3)
    return result


if __name__ == "__main__":
    main()
