"""Draws the pictures of attention in README and documentation from a finished quickstart run:

    uv run mia quickstart mia-quickstart --recipe paper && uv run python docs/make_attention_pictures.py mia-quickstart/run

- before-after.png: of each format the first held-out sample whose answer training made right (questions of counting and
  pairs of images aside), attention before and after.
- attention-one.png: how the ratio of one sample comes about.
- attention-ratios.png: the ratio of right and wrong answers, with the thresholds that were applied.
- attention-layers.png: what each layer's ratio is, and how well it tells wrong answers from right ones.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mia_attention import ScoreSettings, choose_layer, layer_profile, look_at
from mia_attention.measure.maps import Look
from mia_attention.plots import plot_profile
from mia_augment import FORMATS
from mia_augment.images.decode import open_picture
from mia_augment.records import Sample, ScoredSample
from mia_augment.storage.files import image_folders, read_jsonl, resolve_image
from mia_augment.text import same_answer
from mia_cli.layout import Folders, saved_settings
from mia_cli.loading.load import load
from mia_cli.report.collect import thresholds
from mia_dpo_train import trained_weights
from mia_select.evaluation import Prediction
from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).parent
INK, QUIET, GOOD, BAD, ACCENT, PAGE = "#1c1d21", "#63666f", "#14703f", "#c0362c", "#2457d6", "#ffffff"
HEIGHT, GAP, MARGIN = 150, 10, 26
"""Of a drawn picture, between pictures, around a panel; px."""
HEAT = np.array([(87, 16, 110), (188, 55, 84), (249, 142, 9), (255, 236, 90)], dtype=float)
PROFILED = 200


def main(run_dir: Path) -> None:
    folders, settings = Folders(run_dir), ScoreSettings.model_validate(saved_settings(run_dir)["score"])
    name = saved_settings(run_dir)["model"]["name"]
    base, after = load(name), load(str(trained_weights(folders.trained)))
    samples = {sample.id: sample for sample in read_jsonl(folders.held_out / "samples.jsonl", Sample)}
    places = image_folders(folders.held_out)

    def seen(sample: Sample, model: Any) -> Look:
        return look_at(sample, *model, settings, open_image=lambda path: open_picture(resolve_image(path, places)), cells=24)

    found = [samples[name] for name in became_right(folders.evaluated / "predictions.jsonl")]
    turned = sorted(found, key=lambda sample: list(FORMATS).index(sample.format))
    rows = [[panel(seen(sample, model)) for model in (base, after)] for sample in turned]
    stacked(rows, ["before", "after MIA-DPO"]).save(HERE / "before-after.png", optimize=True)
    explained(seen(turned[0], base)).save(HERE / "attention-one.png", optimize=True)
    ratios(folders).savefig(HERE / "attention-ratios.png", dpi=110)
    some = [sample for sample in samples.values() if sample.format == "sequence"][:PROFILED]
    profile = layer_profile(some, *base, settings, open_image=lambda path: open_picture(resolve_image(path, places)))
    wrong = [not same_answer(response, sample.answer) for sample, response, _ in profile]
    by_layer = {layer: [attention[layer].ratio for _, _, attention in profile] for layer in profile[0][2]}
    choice = choose_layer(by_layer, wrong, [f"{sample.format}/{sample.parts}" for sample, _, _ in profile])
    plot_profile(profile, choice).savefig(HERE / "attention-layers.png", dpi=110)


def became_right(path: Path) -> Iterator[str]:
    """Id of the first prediction per format that training turned right, counting and sequences of two aside."""
    found = set()
    for prediction in read_jsonl(path, Prediction):
        turned = prediction.correct_after and not prediction.correct_before and "count" not in prediction.id
        if turned and prediction.format not in found and (prediction.format, prediction.parts) != ("sequence", 2):
            found.add(prediction.format)
            yield prediction.id


def panel(seen: Look) -> Image.Image:
    """The pictures of one answer with the attention over them and the target outlined; question and answer below."""
    top = max(float((mass * mass.size).max()) for mass in seen.maps) or 1.0
    drawn = [
        overlaid(picture, mass * mass.size / top, seen.scored, index)
        for index, (picture, mass) in enumerate(zip(seen.pictures, seen.maps, strict=True))
    ]
    scored = seen.scored
    right = same_answer(scored.response, scored.answer)
    result = Image.new("RGB", (3 * (HEIGHT + GAP) - GAP, HEIGHT + 62), PAGE)
    left = 0
    for picture in drawn:
        result.paste(picture, (left, 0))
        left += picture.width + GAP
    pen = ImageDraw.Draw(result)
    pen.text((0, HEIGHT + 8), scored.prompt.split("<image>")[-1].strip(), font=font(16), fill=QUIET)
    pen.text((0, HEIGHT + 32), scored.response, font=font(20), fill=GOOD if right else BAD)
    ratio = f"ratio {scored.attention.ratio:.2f}" if scored.attention.ratio is not None else ""
    pen.text((result.width, HEIGHT + 36), f"{'right' if right else 'wrong'}, {ratio}", font=font(16), fill=QUIET, anchor="ra")
    return result


def overlaid(picture: Image.Image, density: Any, scored: ScoredSample, index: int) -> Image.Image:
    """Greyed, the attention in colour over it, boxes of the parts drawn."""
    scale = HEIGHT / picture.height
    size = (round(picture.width * scale), HEIGHT)
    small = picture.resize(size, Image.Resampling.LANCZOS)
    grey = Image.blend(small, small.convert("L").convert("RGB"), 0.65).point(lambda value: value * 0.85)
    stops = np.linspace(0, 1, len(HEAT))
    colour = np.stack([np.interp(density, stops, HEAT[:, channel]) for channel in range(3)], axis=-1).round().astype(np.uint8)
    strength = Image.fromarray((255 * np.clip(density, 0, 1) ** 0.7 * 0.9).round().astype(np.uint8))
    grey.paste(
        Image.fromarray(colour).resize(size, Image.Resampling.BICUBIC), (0, 0), strength.resize(size, Image.Resampling.BICUBIC)
    )
    pen = ImageDraw.Draw(grey)
    for part, region in enumerate(scored.regions):
        if region.image == index and part == scored.target:
            box = [round(side * scale) for side in region.box or (0, 0, *picture.size)]
            pen.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), outline=ACCENT, width=4)
    return grey


def stacked(rows: list[list[Image.Image]], titles: list[str]) -> Image.Image:
    """Panels in rows, a title over each column."""
    width, height = rows[0][0].size
    result = Image.new("RGB", (len(titles) * (width + MARGIN) + MARGIN, len(rows) * (height + MARGIN) + MARGIN + 30), PAGE)
    pen = ImageDraw.Draw(result)
    for column, title in enumerate(titles):
        pen.text((MARGIN + column * (width + MARGIN), MARGIN - 10), title, font=font(22), fill=INK)
        for row, panels in enumerate(rows):
            result.paste(panels[column], (MARGIN + column * (width + MARGIN), MARGIN + 30 + row * (height + MARGIN)))
    return result


def explained(seen: Look) -> Image.Image:
    """Pictures, the attention over them, and the arithmetic of the ratio below each."""
    scored = seen.scored
    attention = scored.attention
    top = max(float((mass * mass.size).max()) for mass in seen.maps) or 1.0
    tokens = attention.region_tokens or [1.0] * scored.parts
    means = [mass / count for mass, count in zip(attention.image_mass, tokens, strict=True)]
    result = Image.new("RGB", (len(means) * (HEIGHT + 90), 2 * HEIGHT + 150), PAGE)
    pen = ImageDraw.Draw(result)
    for index, picture in enumerate(seen.pictures):
        left = index * (HEIGHT + 90)
        result.paste(picture.resize((HEIGHT, HEIGHT), Image.Resampling.LANCZOS), (left, 0))
        result.paste(overlaid(picture, seen.maps[index] * seen.maps[index].size / top, scored, index), (left, HEIGHT + GAP))
        colour = ACCENT if index == scored.target else INK
        for line, text in enumerate(
            (
                f"{scored.regions[index].label}{' (asked)' if index == scored.target else ''}",
                f"attention {attention.image_mass[index]:.3f}",
                f"over {tokens[index]:.0f} tokens",
                f"share {means[index] / sum(means):.2f}",
            )
        ):
            pen.text((left, 2 * HEIGHT + 2 * GAP + 26 * line), text, font=font(18), fill=colour)
    pen.text((0, result.height - 24), f"answer: {scored.response}   truth: {scored.answer}", font=font(17), fill=QUIET)
    return result


def ratios(folders: Folders) -> Any:
    """Histograms of the ratio of right and of wrong answers, sequences only."""
    from matplotlib.figure import Figure

    cuts = thresholds(folders.pairs)
    groups: dict[int, tuple[list[float], list[float]]] = {}
    for sample in read_jsonl(folders.scored / "scored.jsonl", ScoredSample):
        if sample.format == "sequence" and sample.attention.ratio is not None:
            right = same_answer(sample.response, sample.answer)
            groups.setdefault(sample.parts, ([], []))[not right].append(sample.attention.ratio)
    figure = Figure(figsize=(10, 2.6), layout="constrained")
    for axis, parts in zip(figure.subplots(1, len(groups), squeeze=False)[0], sorted(groups), strict=True):
        axis.hist(groups[parts], bins=25, range=(0, 1), stacked=True, color=["#aab0bc", ACCENT], label=["right", "wrong"])
        axis.axvline(cuts["sequence", parts], color=BAD, label="threshold")
        axis.axvline(1 / parts, color=QUIET, linestyle=":", label="chance")
        axis.set_title(f"{parts} images", fontsize=10)
        axis.set_xlabel("ratio")
    figure.axes[0].legend(fontsize=8)
    figure.axes[0].set_ylabel("answers")
    return figure


def font(size: int) -> Any:
    return ImageFont.load_default(size)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
