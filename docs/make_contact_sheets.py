"""Draws docs/augment-*.jpg: samples of each format made of real photographs, the target outlined, the prompt below; and
docs/formats.jpg, one of each side by side.

uv run python docs/make_contact_sheets.py
"""

from __future__ import annotations

import tempfile
import textwrap
from pathlib import Path

import skimage
from mia_augment import SEVERAL, AugmentSettings, augment_dataset, compose_grid, open_picture
from mia_augment.compose.canvas import GridStyle
from mia_augment.records import Sample
from mia_augment.storage.files import image_folders, read_jsonl, resolve_image, write_json
from PIL import Image, ImageDraw, ImageFont

PHOTOGRAPHS = {
    "astronaut.png": ("What is the person wearing?", "An orange space suit."),
    "chelsea.png": ("Which animal is it?", "A cat."),
    "rocket.jpg": ("What stands on the launch pad?", "A rocket."),
    "coffee.png": ("What is in the cup?", "Coffee."),
    "hubble_deep_field.jpg": ("What are the bright spots?", "Galaxies."),
    "camera.png": ("What does the man look through?", "A camera."),
    "coins.png": ("What lies on the table?", "Coins."),
    "moon.png": ("Which celestial body is shown?", "The moon."),
    "retina.jpg": ("What part of the body is it?", "The back of an eye."),
    "brick.png": ("What is the wall made of?", "Bricks."),
}
WIDTH, MARGIN = 420, 14
SHOWN = 8
"""Samples on a sheet."""
HERE = Path(__file__).parent


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "rows.json"
        write_json(source, [{"id": n, "image": n, "question": q, "answer": a} for n, (q, a) in PHOTOGRAPHS.items()])
        front = []
        for name in SEVERAL:
            samples = composed(name, source, Path(scratch) / name)
            tiles = [tile(sample, Path(scratch) / name) for sample in samples]
            sheet(tiles).save(HERE / f"augment-{name}.jpg", quality=80)
            front.append(tiles[min(2, len(tiles) - 1)])
        sheet(front, columns=len(front)).save(HERE / "formats.jpg", quality=85)


def composed(name: str, source: Path, out: Path) -> list[Sample]:
    """Samples of one format, as many of each of its numbers of pictures as the sheet has place for."""
    counts = sorted({parts for _, parts in AugmentSettings(formats={name: 1.0}).shares()})
    settings = AugmentSettings(formats={name: 1.0}, per_bucket=max(1, SHOWN // len(counts)))
    augment_dataset(source, Path(skimage.__file__).parent / "data", out, settings)
    return list(read_jsonl(out / "samples.jsonl", Sample))[:SHOWN]


def tile(sample: Sample, out: Path) -> Image.Image:
    """A sample's pictures with the target outlined, its prompt and answer below."""
    pictures = [open_picture(resolve_image(name, image_folders(out))) for name in sample.images]
    target = sample.regions[sample.target]
    box = target.box or (0, 0, *pictures[target.image].size)
    pen = ImageDraw.Draw(pictures[target.image])
    pen.rectangle(
        (box[0], box[1], box[2] - 1, box[3] - 1), outline=(230, 0, 0), width=max(3, pictures[target.image].width // 120)
    )
    if len(pictures) > 1:
        labels = [region.label for region in sample.regions]
        shown = compose_grid(pictures, labels, rows=-(-len(pictures) // 3), style=GridStyle(cell=200, gap=30, label=18)).image
    else:
        shown = pictures[0]
    shown.thumbnail((WIDTH, WIDTH))
    text = [*textwrap.wrap(sample.prompt.replace("\n", " "), 58), f"-> {sample.answer}"]
    result = Image.new("RGB", (WIDTH, shown.height + 8 + 17 * len(text)), "white")
    result.paste(shown, (0, 0))
    pen, font = ImageDraw.Draw(result), ImageFont.load_default(14)
    for line, words in enumerate(text):
        pen.text((0, shown.height + 6 + 17 * line), words, font=font, fill="black")
    return result


def sheet(tiles: list[Image.Image], columns: int = 2) -> Image.Image:
    heights = [max(tile.height for tile in tiles[i : i + columns]) + MARGIN for i in range(0, len(tiles), columns)]
    result = Image.new("RGB", (columns * (WIDTH + MARGIN) + MARGIN, sum(heights) + MARGIN), "white")
    for index, picture in enumerate(tiles):
        result.paste(picture, (MARGIN + index % columns * (WIDTH + MARGIN), MARGIN + sum(heights[: index // columns])))
    return result


if __name__ == "__main__":
    main()
