"""Train the test-bed's models: `uv run python research/testbed/train.py --seed 1`.

0. With `--scratch`: a model of its own size and seed, taught as the embedded one was (vision tower, then all formats).
1. latent-NAME: the embedded model, or the weights of step 0 or `--start`, taught all formats until it answers them.
2. NAME-N for each N of `--narrow-steps`: N further steps on single pictures only, so that the skill with several fades, more
   with more steps.

Each model is written as a plain Hugging Face folder under research/testbed/work/. The test-bed's question is what brings the
faded skill back; how much there is to bring back is N.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

sys.path.insert(0, str(Path(__file__).parents[1] / "embedded"))
import model as family
import train as recipes

WORK = Path(__file__).parent / "work"
EMBEDDED = Path(__file__).parents[2] / "packages/mia-cli/src/mia_cli/embedded"
LATENT = recipes.Recipe(
    "", {"single": 0.12, "sequence": 0.36, "pic_in_pic": 0.12, "grid": 0.40}, steps=500, lr=6e-4, seed=100
)  # fmt: skip
NARROW = recipes.Recipe("", {"single": 1.0}, steps=0, lr=1.5e-3, seed=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=Path, default=EMBEDDED, help="Hugging Face folder to start from")
    parser.add_argument("--scratch", action="store_true", help="start from nothing")
    parser.add_argument("--width", type=int, default=family.Shape.width, help="with --scratch")
    parser.add_argument("--layers", type=int, default=family.Shape.layers, help="with --scratch: of the language model")
    parser.add_argument("--patch", type=int, default=family.Shape.patch, help="with --scratch: side in pixels")
    parser.add_argument("--share", type=float, default=1.0, help="with --scratch: of the embedded model's training steps")
    parser.add_argument("--latent-steps", type=int, default=LATENT.steps)
    parser.add_argument("--narrow-steps", type=int, nargs="*", default=[100, 300, 600])
    parser.add_argument("--narrow-lr", type=float, default=NARROW.lr)
    parser.add_argument("--other", type=float, default=0.0, help="share of latent training in the other wording")
    parser.add_argument("--narrow-other", type=float, default=0.0, help="the same while it narrows")
    parser.add_argument("--name", help="of the models, instead of the seed")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    name = args.name or str(args.seed)
    if args.scratch:
        model, processor = from_scratch(args)
    else:
        processor = AutoProcessor.from_pretrained(args.start)
        model = AutoModelForImageTextToText.from_pretrained(args.start, dtype=torch.float32, attn_implementation="eager")

    if args.latent_steps:
        latent = replace(LATENT, steps=args.latent_steps, seed=LATENT.seed + args.seed, other=args.other)
        taught(model, processor, latent, f"latent-{name}")
    start = {key: value.clone() for key, value in model.state_dict().items()}
    for steps in args.narrow_steps:
        model.load_state_dict(start)
        narrow = replace(NARROW, steps=steps, lr=args.narrow_lr, seed=NARROW.seed + args.seed, other=args.narrow_other)
        taught(model, processor, narrow, f"{name}-{steps}")


def from_scratch(args: argparse.Namespace) -> tuple[torch.nn.Module, object]:
    """The embedded model's first three steps with another seed and size."""
    shape = family.Shape(args.width, args.layers, args.patch)
    processor = family.build_processor(shape)
    seed = 1000 * args.seed
    model = family.build_model(processor.tokenizer, seed, shape)
    model.set_attn_implementation("eager")
    recipes.train_vision(model, round(args.share * recipes.VISION_STEPS), 2e-3, seed + 2)
    for recipe in (recipes.RECIPES["broad"], recipes.RECIPES["deepen"]):
        scaled = {key: round(args.share * getattr(recipe, key)) for key in ("steps", "tagged", "easy")}
        taught(model, processor, replace(recipe, seed=seed + recipe.seed, **scaled), f"scratch-{args.name or args.seed}")
    return model, processor


def taught(model: torch.nn.Module, processor: object, recipe: recipes.Recipe, name: str) -> None:
    """Train, measure on validation pictures, write. Every draw comes from the recipe's seed."""
    torch.manual_seed(recipe.seed)
    random.seed(recipe.seed)
    started = time.time()
    model.train()
    recipes.train_language(model, processor.tokenizer, recipe)
    model.eval()
    print(
        name, f"{time.time() - started:.0f} s", recipes.accuracies(model, processor.tokenizer, "validation", 60, 6), flush=True
    )
    model.save_pretrained(WORK / name)
    processor.save_pretrained(WORK / name)


if __name__ == "__main__":
    main()
