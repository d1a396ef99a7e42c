"""Ask a model about one of several pictures, and see where it looked.

    uv run python examples/attention_over_my_picture/look.py street.jpg cat.jpg --question "What animal is there?" --about 2 \
        --model llava-hf/llava-1.5-7b-hf --out attention.png

Without pictures, two are drawn and the embedded model is asked.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from mia_attention import ScoreSettings, look
from mia_attention.plots import plot_look
from mia_augment import Region, Sample, open_picture
from mia_augment.records import Source
from mia_cli.drawn import drawing
from mia_cli.loading.load import load
from PIL import Image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", nargs="*", type=Path)
    parser.add_argument("--question", default="Which letter is written?")
    parser.add_argument("--about", type=int, help="number of the picture that is asked about, from 1; by default the last")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--layer", default="middle")
    parser.add_argument("--out", type=Path, default=Path("attention.png"))
    options = parser.parse_args()

    pictures = {str(path): open_picture(path) for path in options.pictures} or drawn(2)
    about = options.about or len(pictures)
    layer = int(options.layer) if options.layer.isdecimal() else options.layer
    settings = ScoreSettings(layer=layer, rows="predicting", max_new_tokens=32)
    sample = asked(list(pictures), options.question, about)
    seen = look(sample, *load(options.model), settings, open_image=pictures.__getitem__)

    print(f"{sample.prompt}\n-> {seen.scored.response}")
    for region, mass in zip(seen.scored.regions, seen.scored.attention.image_mass, strict=True):
        print(f"   attention on {region.label}: {mass:.3f}")
    print(f"   ratio {seen.scored.attention.ratio:.2f}; equal attention would give {1 / len(pictures):.2f}")
    plot_look(seen, title=f"{options.question}  {seen.scored.response}").savefig(options.out, dpi=100)
    print(f"-> {options.out}")


def asked(names: list[str], question: str, about: int) -> Sample:
    """A sequence of pictures with a question about one of them."""
    labels = [f"Image{number}" for number in range(1, len(names) + 1)]
    first = question[:1].lower() + question[1:]
    return Sample(
        id="mine",
        format="sequence",
        images=names,
        prompt="".join(f"{label}:<image>\n" for label in labels) + f"In {labels[about - 1]}, {first}",
        answer="(unknown)",
        regions=[Region(image=index, label=label) for index, label in enumerate(labels)],
        target=about - 1,
        source=Source(ids=names, paths=names, question=question),
    )


def drawn(number: int) -> dict[str, Image.Image]:
    """Pictures of shapes and letters, as the embedded model knows them."""
    rng = random.Random(3)
    return {f"drawn {index}": drawing.draw_scene(rng.choice(drawing.scenes("test")), rng)[0] for index in range(number)}


if __name__ == "__main__":
    main()
