"""Step 0: tower and projector learn, without the language model, to put at each place something near its embeddings of
the words for what is there.

Each visual token is compared with the mean embedding of the words of every object and background (a softmax over cosines);
heads that are thrown away ask the pooled tower for number and background.
"""

from __future__ import annotations

import math
import random
import time
from typing import Any

import build
import numpy as np
import scenes
import torch
from torch import distributed
from torch.nn import functional

CLASSES = (*scenes.OBJECTS, *scenes.COLORS, "frame")
_BACKGROUND = len(scenes.OBJECTS)


def word_vectors(tokenizer: Any, embeddings: torch.Tensor) -> torch.Tensor:
    """Mean token embedding of each class's words, (classes, width)."""
    rows = []
    for name in CLASSES:
        words = [embeddings[tokenizer(f" {word}", add_special_tokens=False).input_ids].mean(0) for word in name.split()]
        rows.append(torch.stack(words).mean(0))
    return torch.stack(rows)


def patch_classes(picture: scenes.Picture) -> np.ndarray:
    """The class in each patch, row by row: an object that covers a quarter of it or nowhere more, else background."""
    side = scenes.SIZE // build.PATCH
    labels = np.full((side, side), CLASSES.index("frame"))
    edges = np.arange(side) * build.PATCH

    def covered(box: scenes.Box) -> np.ndarray:
        x = np.clip(np.minimum(edges + build.PATCH, box[2]) - np.maximum(edges, box[0]), 0, None)
        y = np.clip(np.minimum(edges + build.PATCH, box[3]) - np.maximum(edges, box[1]), 0, None)
        return y[:, None] * x[None]

    labels[covered(picture.inside) > build.PATCH**2 / 2] = _BACKGROUND + list(scenes.COLORS).index(picture.scene.background)
    best = np.full((side, side), build.PATCH**2 / 4)
    for name, box in zip(picture.scene.objects, picture.boxes, strict=True):
        area = covered(box)
        taken = (area > best) | (area == area.max())
        labels[taken] = scenes.OBJECTS.index(name)
        best[taken] = np.maximum(best, area)[taken]
    return labels.flatten()


def draw_batch(
    rng: random.Random, count: int, split: scenes.Split = "train", shrunk: float = 0.2, number: tuple[int, int] | None = None
) -> list[scenes.Picture]:
    pictures = [scenes.paint(scenes.draw_scene(rng, split, number and rng.randint(*number)), rng) for _ in range(count)]
    return [scenes.shrink(picture, rng) if rng.random() < shrunk else picture for picture in pictures]


def to_pixels(pictures: list[scenes.Picture]) -> torch.Tensor:
    """As the processor does: (pictures, 3, SIZE, SIZE)."""
    arrays = np.stack([np.asarray(picture.image) for picture in pictures])
    return (torch.from_numpy(arrays).permute(0, 3, 1, 2).float() / 255 - build.MEAN) / build.STD


def rate(step: int, steps: int, warmup: int) -> float:
    """Linear warm-up, then a cosine down to 2 %."""
    return min(1.0, (step + 1) / warmup) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))


def rank() -> int:
    """Which of the processes this is (`torchrun --nproc-per-node 2`); 0 where there is one."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def share(parameters: list[torch.nn.Parameter], done: float = 0.0) -> float:
    """Average gradients over the processes, and how far each is; returns the latter."""
    if not distributed.is_initialized():
        return done
    grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    flat = torch.cat([*(grad.flatten() for grad in grads), torch.tensor([done])])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for parameter, value in zip(parameters, flat[:-1].split([g.numel() for g in grads]), strict=True):
        parameter.grad = value.view_as(parameter)
    return float(flat[-1])


class Heads(torch.nn.Module):
    """What is thrown away after this step."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = torch.nn.LayerNorm(width)
        self.count = torch.nn.Linear(width, 4)
        self.background = torch.nn.Linear(width, len(scenes.COLORS))
        self.scale = torch.nn.Parameter(torch.tensor(math.log(15.0)))


def losses(
    model: Any, heads: Heads, words: torch.Tensor, pictures: list[scenes.Picture]
) -> tuple[torch.Tensor, dict[str, float]]:
    """The loss of a batch and the accuracies behind it."""
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model.vision_tower(pixel_values=to_pixels(pictures)).last_hidden_state[:, 1:]
        projected = model.model.multi_modal_projector(hidden).float()
    classes = torch.from_numpy(np.stack([patch_classes(picture) for picture in pictures]))
    logits = functional.normalize(projected, dim=-1) @ functional.normalize(words, dim=-1).T * heads.scale.exp().clamp(max=40)
    size = (projected.norm(dim=-1) / words.norm(dim=-1).mean()).log().square().mean()
    pooled = heads.norm(hidden.float()).mean(1)
    count = torch.tensor([len(picture.scene.objects) - 1 for picture in pictures])
    color = torch.tensor([list(scenes.COLORS).index(picture.scene.background) for picture in pictures])
    counts, colors = heads.count(pooled), heads.background(pooled)
    objects = classes < _BACKGROUND
    dense = functional.cross_entropy(logits[objects], classes[objects]) + 0.5 * functional.cross_entropy(
        logits[~objects], classes[~objects]
    )
    loss = dense + 0.1 * size + 0.5 * functional.cross_entropy(counts, count) + 0.5 * functional.cross_entropy(colors, color)
    hit = logits.argmax(-1) == classes
    accuracies = {
        "objects": hit[objects].float().mean().item(),
        "rest": hit[~objects].float().mean().item(),
        "count": (counts.argmax(-1) == count).float().mean().item(),
        "background": (colors.argmax(-1) == color).float().mean().item(),
    }
    return loss, accuracies


def train_tower(model: Any, words: torch.Tensor, steps: int, lr: float = 1.5e-3, size: int = 64, minutes: float = 1e9) -> None:
    """In place; ends after so many steps, or at a rate that falls with the time where `minutes` are fewer."""
    rng = random.Random(f"tower/{rank()}")
    tower, projector = model.model.vision_tower, model.model.multi_modal_projector
    heads = Heads(tower.config.hidden_size)
    parameters = [*tower.parameters(), *projector.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.98), weight_decay=0.01, fused=True)
    started, recent = time.time(), []
    done = 0.0
    for step in range(steps):
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, (step + 1) / 150) * rate(int(1000 * done), 1000, 1)
        loss, accuracies = losses(model, heads, words, draw_batch(rng, size, shrunk=0.25 * done))
        loss.backward()
        done = share(parameters, max((step + 1) / steps, (time.time() - started) / 60 / minutes))
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        recent.append(accuracies)
        if step % 100 == 99 and not rank():
            means = {name: round(float(np.mean([a[name] for a in recent[-50:]])), 3) for name in accuracies}
            print("tower", step + 1, f"{time.time() - started:.0f}s", f"{loss.item():.3f}", means, flush=True)
    with torch.no_grad():
        found = [losses(model, heads, words, draw_batch(rng, 256, "validation", 0.0))[1] for _ in range(2)]
    print("tower validation", {name: round(float(np.mean([a[name] for a in found])), 3) for name in found[0]}, flush=True)
