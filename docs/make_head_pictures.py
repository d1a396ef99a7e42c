"""Draws the pictures of "Which head finds the named image?" and "Did it really use Image 2?" with the embedded model, on drawn
pictures:

    uv run python docs/make_head_pictures.py [FOLDER]

- which-heads.png: how often each head looks most at the picture that is named.
- head-over-pictures.png: the attention of a whole layer, and of the best of these heads, over the pictures of one prompt.
- without-each.png: two answers, where the model looked, and what each answer loses without each picture.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from mia_attention import AnswerView, Look, ScoreSettings, find_heads, look, look_at
from mia_attention.plots import ACCENT, OTHER, TARGET, plot_heads
from mia_augment import AugmentSettings, Sample, augment_dataset
from mia_augment.images import picture_opener
from mia_augment.storage import read_jsonl
from mia_cli.drawn import drawing
from mia_cli.drawn.drawn_data import write_rows
from mia_cli.loading.load import load
from PIL import Image

HERE = Path(__file__).parent
SAMPLES, PICTURES, DPI = 120, 3, 90
QUESTION = "In Image{}, what color are the shapes?"


def main(folder: Path) -> None:
    model, processor = load("embedded")
    with tempfile.TemporaryDirectory() as work:
        samples, open_image = drawn_samples(Path(work))
        settings = ScoreSettings(max_new_tokens=12, batch_size=32, rows="question")
        found = find_heads(samples, model, processor, settings, open_image=open_image, goal="target", most=4)
        plot_heads(found).savefig(folder / "which-heads.png", dpi=DPI)
        best = found.heads[:1]
        ways: dict[str, dict[str, Any]] = {
            f"layer {best[0][0]}, mean over heads": {"layer": best[0][0]},
            f"head {best[0][0]}.{best[0][1]}": {"layer": "heads", "heads": best},
        }
        shown = samples[1]  # of the half that heads were not chosen on
        looks = {
            name: look_at(shown, model, processor, settings.model_copy(update=way), open_image=open_image)
            for name, way in ways.items()
        }
        over_pictures(looks).savefig(folder / "head-over-pictures.png", dpi=DPI)
    views = [look(model, processor, pictures, QUESTION.format(about)) for pictures, about in asked()]
    without_each(views).savefig(folder / "without-each.png", dpi=DPI)


def drawn_samples(work: Path) -> tuple[list[Sample], Any]:
    """Sequences of three drawn pictures, and what opens them."""
    write_rows(work / "data", "train", SAMPLES // 2)
    shape = AugmentSettings.model_validate({"formats": {"sequence": 1}, "sequence": {"counts": [PICTURES]}})
    augment_dataset(work / "data" / "rows.json", work / "data", work / "samples", shape)
    samples = list(read_jsonl(work / "samples" / "samples.jsonl", Sample))
    random.Random(0).shuffle(samples)
    return samples[:SAMPLES], picture_opener(work / "samples")


def over_pictures(looks: dict[str, Look]) -> Any:
    """A row for each reading, the attention over each picture, one scale a row."""
    count = len(next(iter(looks.values())).pictures)
    figure = Figure(figsize=(2.4 * count, 2.5 * len(looks) + 0.5), layout="constrained")
    axes = figure.subplots(len(looks), count, squeeze=False)
    for row, (name, seen) in zip(axes, looks.items(), strict=True):
        densities = [mass * mass.size for mass in seen.maps]
        top = max(float(density.max()) for density in densities) or 1.0
        total = sum(seen.scored.attention.image_mass) or 1.0
        for index, (axis, picture, density) in enumerate(zip(row, seen.pictures, densities, strict=True)):
            extent = (0, picture.width, picture.height, 0)
            axis.imshow(np.asarray(picture), extent=extent)
            heat = Image.fromarray(np.uint8(255 * density / top)).resize(picture.size, Image.Resampling.BILINEAR)
            strength = np.asarray(heat) / 255
            axis.imshow(strength, cmap="inferno", extent=extent, vmin=0, vmax=1, alpha=0.8 * np.sqrt(strength))
            axis.set(xticks=[], yticks=[])
            named = index == seen.scored.target
            share = seen.scored.attention.image_mass[index] / total
            axis.set_title(f"Image{index + 1} {share:.0%}", fontsize=9, color=TARGET if named else "black")
        row[0].set_ylabel(name, fontsize=9)
    figure.suptitle(next(iter(looks.values())).scored.prompt.split("<image>")[-1].strip(), fontsize=10)
    return figure


def asked() -> list[tuple[list[Image.Image], int]]:
    """Pictures, and the number of the one asked about: a question that is answered right, and one that is answered wrong."""
    return [(scenes(10), 2), (scenes(10), 3)]


def scenes(seed: int) -> list[Image.Image]:
    rng = random.Random(seed)
    return [drawing.draw_scene(rng.choice(drawing.scenes("test")), rng)[0] for _ in range(PICTURES)]


def without_each(views: Sequence[AnswerView]) -> Any:
    """A row for each answer: its pictures, and for each the share of attention and the nats that are lost without it."""
    figure = Figure(figsize=(9.0, 2.2 * len(views)), layout="constrained")
    for part, view in zip(figure.subfigures(len(views), 1, squeeze=False)[:, 0], views, strict=True):
        part.suptitle(f"{view.question}   “{view.answer}”", fontsize=10, weight="bold")
        row = part.subplots(1, PICTURES + 2, width_ratios=[1.0] * PICTURES + [0.9, 0.9])
        for index, picture in enumerate(view.pictures):
            row[index].imshow(np.asarray(picture))
            row[index].set(xticks=[], yticks=[])
            row[index].set_title(view.labels[index], fontsize=9, color=TARGET if index == view.about else "black")
        bars = (
            (view.attention.share, "share of attention", OTHER, "%.2f"),
            (view.knockout, "nats lost without", ACCENT, "%.1f"),
        )
        for axis, (values, title, colour, form) in zip(row[PICTURES:], bars, strict=True):
            lengths = [max(value, 0.0) for value in values or []]
            drawn = axis.barh(view.labels, lengths, color=colour)
            axis.bar_label(drawn, [form % round(value, 2) for value in values or []], fontsize=8, padding=2)
            axis.invert_yaxis()
            axis.set(xticks=[], xlim=(0, 1.5 * max(lengths)))
            axis.tick_params(labelsize=8, length=0)
            axis.spines[["top", "right", "bottom"]].set_visible(False)
            axis.set_title(title, fontsize=9)
    return figure


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
