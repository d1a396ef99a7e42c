"""Draws the pictures of "Where did this word come from?" with the embedded model, on drawn pictures:

    uv run python docs/make_look_pictures.py [FOLDER]

- where-words.png: the words of one answer, and the heat of each over the pictures.
- image-words.png: what the visual tokens of a picture stand for in the last layers (logit lens).
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from mia_attention import AnswerView, image_words, look
from mia_attention.looking.view_page import brightness
from mia_attention.plots import plot_words
from mia_cli.drawn import drawing
from mia_cli.loading.load import load
from PIL import Image

HERE = Path(__file__).parent
QUESTION = "In Image2, what color are the shapes?"


def main(folder: Path) -> None:
    model, processor = load("embedded")
    rng = random.Random(3)
    pictures = [drawing.draw_scene(rng.choice(drawing.scenes("test")), rng)[0] for _ in range(2)]
    view = look(model, processor, pictures, QUESTION)
    words(view).savefig(folder / "where-words.png", dpi=90)
    found = image_words(model, processor, pictures, QUESTION, layers=[4], top=1)
    plot_words(found, 4, least=0.0).savefig(folder / "image-words.png", dpi=90)


def words(view: AnswerView) -> Any:
    """A column for each word, a row for each picture, and each picture's share."""
    reading = view.gradient or view.attention
    cells = brightness(reading)
    spoken = [index for index, text in enumerate(view.tokens) if any(letter.isalnum() for letter in text)]
    figure = Figure(figsize=(2.0 * len(spoken), 2.3 * len(view.pictures) + 0.6), layout="constrained")
    axes = figure.subplots(len(view.pictures), len(spoken), squeeze=False)
    for column, token in enumerate(spoken):
        shares = reading.shares[token] or [0.0] * len(view.pictures)
        for row, picture in enumerate(view.pictures):
            axis, extent = axes[row, column], (0, picture.width, picture.height, 0)
            axis.imshow(np.asarray(picture), extent=extent)
            if cells is not None:
                heat = cells[row][token + 1] / 255
                shown = Image.fromarray(np.uint8(255 * heat)).resize(picture.size, Image.Resampling.BILINEAR)
                strength = np.asarray(shown) / 255
                axis.imshow(strength, cmap="inferno", extent=extent, vmin=0, vmax=1, alpha=0.8 * np.sqrt(strength))
            axis.set_axis_off()
            axis.set_title(f"{view.labels[row]} {shares[row]:.0%}", fontsize=8)
        axes[0, column].text(
            0.5, 1.25, view.tokens[token].strip(), transform=axes[0, column].transAxes, ha="center", fontsize=12, weight="bold"
        )
    figure.suptitle(view.question, fontsize=10)
    return figure


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
