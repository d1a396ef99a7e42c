"""Train the test-bed's models: `uv run python research/testbed/train.py --seed 1`.

1. latent-S: the embedded model, or weights trained from scratch (`--start`), taught all formats until it answers them.
2. S-N for each of NARROW: N further steps on single pictures only, so that the skill with several fades, more with more steps.

Each model is written as a plain Hugging Face folder under research/testbed/work/. The test-bed's question is what brings the
faded skill back; how much is there to bring back is N.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

sys.path.insert(0, str(Path(__file__).parents[1] / "embedded"))
import train as recipes

WORK = Path(__file__).parent / "work"
EMBEDDED = Path(__file__).parents[2] / "packages/mia-cli/src/mia_cli/embedded"
LATENT = recipes.Recipe(
    "embedded", {"single": 0.12, "sequence": 0.36, "pic_in_pic": 0.12, "grid": 0.40}, steps=500, lr=6e-4, seed=100
)
NARROW = (100, 300, 600)
NARROW_LR = 1.5e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=Path, default=EMBEDDED, help="Hugging Face folder to start from")
    parser.add_argument("--latent-steps", type=int, default=LATENT.steps)
    parser.add_argument("--narrow-steps", type=int, nargs="*", default=list(NARROW))
    parser.add_argument("--other", type=float, default=0.0, help="share of latent training in the other wording")
    parser.add_argument("--name", help="of the models, instead of the seed")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    processor = AutoProcessor.from_pretrained(args.start)
    model = AutoModelForImageTextToText.from_pretrained(args.start, dtype=torch.float32, attn_implementation="eager")

    latent = recipes.Recipe("", LATENT.shares, args.latent_steps, LATENT.lr, LATENT.seed + args.seed, other=args.other)
    name = args.name or str(args.seed)
    taught(model, processor, latent, f"latent-{name}")
    start = {name: value.clone() for name, value in model.state_dict().items()}
    for steps in args.narrow_steps:
        model.load_state_dict(start)
        narrow = recipes.Recipe("", {"single": 1.0}, steps, NARROW_LR, LATENT.seed + 50 + args.seed)
        taught(model, processor, narrow, f"{name}-{steps}")


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
