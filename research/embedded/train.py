"""Train the embedded model from scratch: `uv run python research/embedded/train.py`.

1. The vision tower alone: what lies in each patch, and the picture's attributes.
2. Broad: single pictures, sequences, pic-in-pic and grids, several questions a prompt. This gives the latent skill.
3. Deepen: the same again, with more grids, from a smaller learning rate.
4. Narrow: single pictures only, until the skill with several fades, as LLaVA-1.5 came about.

Each step starts from the file of the one before (research/embedded/work/), so that one can be repeated alone.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import data
import model as embedded
import numpy as np
import torch
from mia_cli.drawn import drawing
from torch.nn import functional

WORK = Path(__file__).parent / "work"


def bfloat16_pays(size: int = 512, times: int = 20) -> bool:
    """Whether matrix products in bfloat16 are faster here: four times with AVX512-BF16, up to 30 times slower without."""
    seconds = []
    for dtype in (torch.float32, torch.bfloat16):
        matrix = torch.ones(size, size, dtype=dtype)
        matrix @ matrix
        started = time.perf_counter()
        for _ in range(times):
            matrix @ matrix
        seconds.append(time.perf_counter() - started)
    return seconds[1] < seconds[0]


AUTOCAST = {"device_type": "cpu", "dtype": torch.bfloat16, "enabled": bfloat16_pays()}
BUCKETS = [
    ("single", 1), ("sequence", 2), ("sequence", 3), ("sequence", 4), ("sequence", 5),
    ("pic_in_pic", 2), ("grid", 2), ("grid", 3), ("grid", 4),
]  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """How one step trains the language model (and all the rest)."""

    start: str
    """Step whose weights it starts from."""
    shares: dict[str, float]
    """Share of prompts per format."""
    steps: int
    lr: float
    seed: int
    tagged: int = 0
    """Number of first steps with the auxiliary loss of `answer_loss`."""
    easy: int = 0
    """Number of first steps with at most three pictures a prompt."""
    other: float = 0.0
    """Share of prompts whose answers are in the other wording."""


VISION_STEPS = 3000
RECIPES = {
    "broad": Recipe(
        "vision", {"single": 0.16, "sequence": 0.54, "pic_in_pic": 0.12, "grid": 0.18},
        steps=2600, lr=1e-3, seed=3, tagged=866, easy=520,
    ),
    "deepen": Recipe(
        "broad", {"single": 0.14, "sequence": 0.48, "pic_in_pic": 0.10, "grid": 0.28}, steps=2400, lr=6e-4, seed=4
    ),
    "narrow": Recipe("deepen", {"single": 1.0}, steps=600, lr=1.5e-3, seed=5),
}  # fmt: skip


def schedule(step: int, steps: int, warmup: int) -> float:
    """Linear warm-up, then a cosine down to 2 %."""
    done = min(1.0, step / steps)
    return min(1.0, (step + 1) / warmup) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))


def optimise(
    parameters: list[torch.nn.Parameter], loss_of: Callable[[int], torch.Tensor], steps: int, lr: float, warmup: int
) -> None:
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * schedule(step, steps, warmup)
        loss_of(step).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()


def train_vision(model: torch.nn.Module, steps: int, lr: float, seed: int) -> None:
    """Dense patch classes and picture attributes, through heads that are thrown away."""
    tower = model.model.vision_tower
    width, patch = tower.config.hidden_size, tower.config.patch_size
    rng = random.Random(seed)
    dense = torch.nn.Linear(width, 2 + len(data.OBJECTS))
    heads = torch.nn.ModuleDict({name: torch.nn.Linear(width, len(v)) for name, v in drawing.ATTRIBUTES.items()})
    norm = torch.nn.LayerNorm(width)
    started, recent = time.time(), []

    def loss_of(step: int) -> torch.Tensor:
        pictures, scenes, patches = zip(*(data.placed(rng, "train", patch) for _ in range(64)), strict=True)
        with torch.autocast(**AUTOCAST):
            hidden = tower(pixel_values=data.to_pixels(list(pictures))).last_hidden_state[:, 1:]
        hidden = norm(hidden.float())
        loss = 2 * functional.cross_entropy(dense(hidden).flatten(0, 1), torch.from_numpy(np.stack(patches)).flatten())
        pooled, right = hidden.mean(1), []
        for name, values in drawing.ATTRIBUTES.items():
            wanted = torch.tensor([values.index(scene[name]) for scene in scenes])
            logits = heads[name](pooled)
            loss = loss + functional.cross_entropy(logits, wanted)
            right.append((logits.argmax(-1) == wanted).float().mean().item())
        recent.append(right)
        if step % 100 == 99:
            means = dict(zip(drawing.ATTRIBUTES, np.mean(recent[-50:], 0).round(3).tolist(), strict=True))
            print("vision", step + 1, f"{time.time() - started:.0f}s", f"{loss.item():.3f}", means, flush=True)
        return loss

    optimise([*tower.parameters(), *dense.parameters(), *heads.parameters(), *norm.parameters()], loss_of, steps, lr, 100)


def answer_loss(model: torch.nn.Module, batch: data.Batch, tag: torch.nn.Module | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of the answers; also which answer tokens were right.

    With `tag`, a linear head on the first layer, the loss also asks every visual token which image it belongs to: the
    binding that looking up "Image 3" needs, and which otherwise takes very long to form.
    """
    first: list[torch.Tensor] = []
    hook = model.model.language_model.layers[0].register_forward_hook(
        lambda _module, _inputs, output: first.append(output[0] if isinstance(output, tuple) else output)
    )
    with torch.autocast(**AUTOCAST):
        hidden = model.model(
            input_ids=batch.input_ids,
            pixel_values=batch.pixel_values,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            use_cache=False,
        ).last_hidden_state
        asked = batch.labels != -100
        logits = model.lm_head(hidden[asked]).float()
    hook.remove()
    wanted = batch.labels[asked]
    loss = functional.cross_entropy(logits, wanted)
    if tag is not None:
        visual = batch.image_index >= 0
        loss = loss + 0.5 * functional.cross_entropy(tag(first[0][visual].float()), batch.image_index[visual])
    return loss, logits.argmax(-1) == wanted


def value_accuracy(right: torch.Tensor, labels: torch.Tensor, tokenizer: object) -> float:
    """Accuracy on the tokens that carry the information: the attributes' values."""
    words = [f" {value}" for values in drawing.ATTRIBUTES.values() for value in values]
    values = torch.tensor([tokenizer(word, add_special_tokens=False).input_ids[0] for word in words])
    return right[torch.isin(labels[labels != -100], values)].float().mean().item()


@torch.no_grad()
def accuracies(model: torch.nn.Module, tokenizer: object, split: drawing.Split, count: int, seed: int) -> dict[str, float]:
    """Teacher-forced accuracy per format and number of pictures."""
    model.eval()
    rng = random.Random(seed)
    result = {}
    for kind, number in BUCKETS:
        examples = [data.make_example(kind, number, rng, split) for _ in range(count)]
        batch = data.collate(examples, tokenizer, model.config.image_seq_length)
        result[f"{kind}/{number}"] = round(value_accuracy(answer_loss(model, batch, None)[1], batch.labels, tokenizer), 3)
    model.train()
    return result


def train_language(model: torch.nn.Module, tokenizer: object, recipe: Recipe, size: int = 16) -> None:
    """Answer questions about prompts of several formats, `size` prompts a step."""
    rng = random.Random(recipe.seed)
    shares = recipe.shares
    tag = torch.nn.Linear(model.config.text_config.hidden_size, 9)
    visual_tokens, patch = model.config.image_seq_length, model.config.vision_config.patch_size
    started, recent = time.time(), {}

    def loss_of(step: int) -> torch.Tensor:
        kind = rng.choices(list(shares), list(shares.values()))[0]
        most = 3 if step < recipe.easy else {"grid": 4}.get(kind, 5)
        number = {"single": 1, "pic_in_pic": 2}.get(kind) or rng.randint(2, most)
        answer = data.other_answer if recipe.other and rng.random() < recipe.other else drawing.true_answer
        if kind == "single":
            examples = [single_example(rng, patch, answer) for _ in range(2 * size)]
        else:
            examples = [data.make_example(kind, number, rng, "train", answer=answer) for _ in range(size)]
        batch = data.collate(examples, tokenizer, visual_tokens)
        loss, right = answer_loss(model, batch, tag if step < recipe.tagged else None)
        recent.setdefault(f"{kind}/{number}", []).append(value_accuracy(right, batch.labels, tokenizer))
        if step % 100 == 99:
            means = {name: round(float(np.mean(values[-12:])), 3) for name, values in sorted(recent.items())}
            print(step + 1, f"{time.time() - started:.0f}s", f"{loss.item():.3f}", means, flush=True)
        if step % 500 == 499:
            save(model, "partial")
        return loss

    optimise([*model.parameters(), *tag.parameters()], loss_of, recipe.steps, recipe.lr, 60)


def single_example(rng: random.Random, patch: int, answer: data.Answer = drawing.true_answer) -> data.Example:
    """One picture, at times shrunk onto a frame, and all questions about it."""
    picture, scene, _ = data.placed(rng, "train", patch)
    return data.Example([picture], "<image>\n", [data.ask(scene, name, answer=answer) for name in drawing.ATTRIBUTES])


def save(model: torch.nn.Module, name: str) -> None:
    WORK.mkdir(exist_ok=True)
    torch.save(model.state_dict(), WORK / f"{name}.pt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["vision", *RECIPES], help="repeat one step, from the weights of the one before")
    parser.add_argument("--steps", type=int, help="with --only: train for so many steps instead")
    parser.add_argument("--start", help="with --only: weights to start from instead")
    parser.add_argument("--lr", type=float, help="with --only: peak learning rate instead")
    parser.add_argument("--name", help="with --only: save the weights under this name instead")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = embedded.build_tokenizer()
    model = embedded.build_model(tokenizer)
    model.set_attn_implementation("eager")  # its backward is faster than SDPA's on a CPU
    for name in [args.only] if args.only else ["vision", *RECIPES]:
        if name == "vision":
            train_vision(model, args.steps or VISION_STEPS, 2e-3, seed=2)
        else:
            changes = {"steps": args.steps, "start": args.start, "lr": args.lr}
            recipe = replace(RECIPES[name], **{key: value for key, value in changes.items() if value is not None})
            model.load_state_dict(torch.load(WORK / f"{recipe.start}.pt"))
            model.train()
            train_language(model, tokenizer, recipe)
        save(model, args.name or name)
        print(name, "validation", accuracies(model, tokenizer, "validation", 60, seed=6), flush=True)


if __name__ == "__main__":
    main()
