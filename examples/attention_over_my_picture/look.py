"""Ask a model about pictures, and see where each word of its answer came from.

    uv run python examples/attention_over_my_picture/look.py street.jpg cat.jpg --question "In Image2, what animal is it?" \
        --model llava-hf/llava-1.5-7b-hf --out where.html

Without pictures, two are drawn and the embedded model is asked. `mia look` does the same.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import mia_attention
from mia_cli.drawn import drawing
from mia_cli.loading.load import load
from PIL import Image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", nargs="*", type=Path)
    parser.add_argument("--question", default="In Image2, which letter is written?")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--out", type=Path, default=Path("where.html"))
    options = parser.parse_args()

    model, processor = load(options.model)
    view = mia_attention.look(model, processor, options.pictures or drawn(2), options.question)
    print(view)
    print(f"each picture's share: {view.share}")
    print(f"-> {view.save(options.out)}")


def drawn(number: int) -> list[Image.Image]:
    """Pictures of shapes and letters, as the embedded model knows them."""
    rng = random.Random(3)
    return [drawing.draw_scene(rng.choice(drawing.scenes("test")), rng)[0] for _ in range(number)]


if __name__ == "__main__":
    main()
