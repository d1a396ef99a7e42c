"""Measure the trained weights on the test pictures and write the embedded model: `uv run python research/embedded/export.py`.

The answers are generated through the same functions as in a run (`mia_augment` composes, `mia_attention` answers).
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
from datetime import date
from pathlib import Path

import model as embedded
import torch
from mia_attention import respond
from mia_augment import AugmentSettings, Sample, augment_dataset
from mia_augment.images import open_picture
from mia_augment.storage import image_folders, read_jsonl, resolve_image
from mia_cli.drawn import drawing
from mia_select import wilson
from train import BUCKETS, WORK

TARGET = Path(__file__).parents[2] / "packages/mia-cli/src/mia_cli/embedded"
GRID = {"cell": 96, "gap": 20, "label": 18}


def draw_rows(folder: Path, split: drawing.Split, pictures: int, seed: int) -> Path:
    """LLaVA-format rows, one question a picture, over freshly drawn pictures."""
    rng = random.Random(seed)
    rows = []
    for index in range(pictures):
        scene = rng.choice(drawing.scenes(split))
        name = rng.choice(list(drawing.ATTRIBUTES))
        drawing.draw_scene(scene, rng)[0].save(folder / f"{index:05}.png")
        turns = [("human", f"<image>\n{drawing.QUESTIONS[name]}"), ("gpt", drawing.true_answer(scene, name))]
        conversations = [{"from": who, "value": value} for who, value in turns]
        rows.append({"id": str(index), "image": f"{index:05}.png", "conversations": conversations})
    (folder / "rows.json").write_text(json.dumps(rows))
    return folder / "rows.json"


def make_samples(folder: Path, split: drawing.Split, per_bucket: int, seed: int) -> dict[tuple[str, int], list[Sample]]:
    (folder / "pictures").mkdir(parents=True)
    source = draw_rows(folder / "pictures", split, 3 * per_bucket, seed)
    settings = AugmentSettings.model_validate(
        {
            "formats": ["single", "sequence", "grid", "pic_in_pic"],
            "sequence": {"counts": dict.fromkeys((2, 3, 4, 5), 1)},
            "grid": {"counts": dict.fromkeys((2, 3, 4), 1), **GRID},
            "per_bucket": per_bucket,
        }
    )
    augment_dataset(source, folder / "pictures", folder / "samples", settings, seed=seed)
    buckets: dict[tuple[str, int], list[Sample]] = {}
    for sample in read_jsonl(folder / "samples" / "samples.jsonl", Sample):
        number = 1 if sample.format == "single" else sample.parts
        buckets.setdefault((sample.format, number), []).append(sample)
    return buckets


def measure(
    model: torch.nn.Module, processor: object, buckets: dict[tuple[str, int], list[Sample]], folder: Path
) -> dict[str, tuple[int, int]]:
    """Exactly right answers and questions per bucket."""
    folders = image_folders(folder / "samples")
    counts = {}
    for bucket in BUCKETS:
        samples = buckets[bucket]
        answers = respond(
            samples, model, processor,
            open_image=lambda name: open_picture(resolve_image(name, folders)), batch_size=32, max_new_tokens=12,
        )  # fmt: skip
        right = sum(sample.answer == answer.text for sample, answer in zip(samples, answers, strict=True))
        counts["{} {}".format(*bucket)] = (right, len(samples))
    return counts


def write_model(model: torch.nn.Module, processor: object, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    model.generation_config.max_new_tokens = 32
    model.half().save_pretrained(target)
    processor.save_pretrained(target)
    for file in target.iterdir():
        file.chmod(0o644)
    model.float()


def card(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]], minutes: str, parameters: int) -> str:
    lines = []
    for name in after:
        cells = [
            f"{100 * right / n:.1f} ({100 * wilson(right, n)[0]:.1f} to {100 * wilson(right, n)[1]:.1f})"
            for right, n in (before[name], after[name])
        ]
        lines.append(f"| {name} | {after[name][1]} | {cells[0]} | {cells[1]} |")
    template = (Path(__file__).parent / "card_template.md").read_text()
    return template.format(
        table="\n".join(lines), date=date.today().isoformat(), parameters=f"{parameters / 1e6:.2f}", minutes=minutes
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--split",
        default="test",
        choices=["validation", "test"],
        help="choices are made on validation pictures, figures reported on test ones",
    )
    parser.add_argument("--before", default="broad")
    parser.add_argument("--after", default="narrow")
    parser.add_argument("--per-bucket", type=int, default=400)
    parser.add_argument("--minutes", default="?", help="training time, for the card")
    parser.add_argument("--write", action="store_true", help="write the model after and its card into mia-cli")
    args = parser.parse_args()
    processor = embedded.build_processor()
    model = embedded.build_model(processor.tokenizer)
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        buckets = make_samples(folder, args.split, args.per_bucket, seed=77)
        for weights in (args.before, args.after):
            model.load_state_dict(torch.load(WORK / f"{weights}.pt"))
            model.eval()
            results.append(measure(model, processor, buckets, folder))
            print(weights, {k: round(100 * r / n, 1) for k, (r, n) in results[-1].items()}, flush=True)
    if args.write:
        write_model(model, processor, TARGET)
        parameters = sum(p.numel() for p in model.parameters())
        text = card(*results, args.minutes, parameters)
        (TARGET / "MODEL_CARD.md").write_text(text)


if __name__ == "__main__":
    main()
