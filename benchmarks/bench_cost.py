"""What a 7B model costs, computed from FLOPs, and the same count checked on a small model on this CPU: `docs/costs.md`.

    uv run python benchmarks/bench_cost.py            # the tables
    uv run python benchmarks/bench_cost.py --check    # counted and timed on a small model

A forward pass costs 2 FLOPs for each weight and token, and 4 x width x tokens for each token and layer of attention.
A training step with adapters costs it three times over: forward, recomputed (checkpointing), and backward to the activations,
which is as much again; gradients of frozen weights are not computed. The reference pass is one more forward.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

from mia_augment import AugmentSettings
from mia_dpo_train import TrainSettings

ANSWER = 30
"""Tokens of an answer: a sentence or two."""
PROMPT = 60
"""Tokens of a prompt besides those of its pictures."""
BATCH = 8
UTILISATION = 0.4
"""Share of the peak that large matrix products reach in practice in such models; from 0.3 to 0.55."""
BANDWIDTH = 0.6
"""Share of the memory's bandwidth that generation reaches, which reads all weights for each token of a batch."""


@dataclass(frozen=True)
class Transformer:
    """The sizes that decide what a pass costs."""

    width: int
    layers: int
    inner: int
    gated: bool = True
    key_width: int | None = None
    """Of keys and values; None: the width."""

    @property
    def weights(self) -> int:
        """In matrices of the layers."""
        attention = 2 * self.width**2 + 2 * self.width * (self.key_width or self.width)
        return self.layers * (attention + (3 if self.gated else 2) * self.width * self.inner)

    def forward(self, tokens: float) -> float:
        """FLOPs of a pass over so many tokens; attention counted in full, as SDPA with a mask computes it."""
        return 2 * self.weights * tokens + 4 * tokens**2 * self.width * self.layers


@dataclass(frozen=True)
class Device:
    """A GPU by its data sheet."""

    name: str
    flops: float
    """Dense bf16."""
    bandwidth: float
    """Bytes a second."""


VICUNA = Transformer(width=4096, layers=32, inner=11008)
CLIP = Transformer(width=1024, layers=23, inner=4096, gated=False)
PICTURE = 576
"""Visual tokens of a picture in LLaVA-1.5."""
DEVICES = (
    Device("H100 80 GB", 989e12, 3.35e12),
    Device("A100 80 GB", 312e12, 2.0e12),
    Device("RTX 4090 24 GB", 165e12, 1.0e12),
)


def pictures() -> float:
    """Image files of a sample, on average, with the default formats and numbers."""
    shares = AugmentSettings().shares()
    return sum(share * (parts if name == "sequence" else 1) for (name, parts), share in shares.items())


def scoring(device: Device, images: float) -> float:
    """Seconds for a sample: the prompt's pass, and the answer's tokens, whose passes read all weights."""
    prompt = VICUNA.forward(images * PICTURE + PROMPT) + images * CLIP.forward(PICTURE + 1)
    token = 2 * VICUNA.weights / (device.bandwidth * BANDWIDTH)  # 2 bytes a weight
    return prompt / (device.flops * UTILISATION) + ANSWER * token / BATCH


def training(device: Device, images: float) -> float:
    """Seconds for a pair and epoch: prompt and pictures once, both answers behind them, and the reference pass."""
    tokens = images * PICTURE + PROMPT + 2 * ANSWER
    passes = 4 * VICUNA.forward(tokens) + 4 / 3 * 3 * 2 * lora_weights() * tokens + 2 * images * CLIP.forward(PICTURE + 1)
    return passes / (device.flops * UTILISATION)


def lora_weights() -> int:
    """Of adapters of the default rank on every linear layer."""
    rank, width, inner = TrainSettings().lora.r, VICUNA.width, VICUNA.inner
    return VICUNA.layers * rank * (4 * 2 * width + 3 * (width + inner))


def memory(images: float, *, training: bool) -> float:
    """Bytes: weights in 16 bits; adapters with gradients and Adam's moments in 32; activations, or the cache of a batch."""
    tokens = images * PICTURE + PROMPT
    weights = 2 * (VICUNA.weights + CLIP.weights + 2 * 32_064 * VICUNA.width)
    if not training:
        return weights + BATCH * (tokens + ANSWER) * 2 * 2 * VICUNA.width * VICUNA.layers
    kept = 2 * tokens * VICUNA.width * VICUNA.layers  # a checkpoint for each layer
    one_layer = 2 * tokens * (12 * VICUNA.width + 4 * VICUNA.inner)
    return weights + 16 * lora_weights() + kept + one_layer


def tables() -> list[str]:
    """The lines of the page."""
    lines = ["| GPU | 10,000 samples scored | 10,000 pairs trained, one epoch |", "|---|---|---|"]
    mean = pictures()
    for device in DEVICES:
        hours = [10_000 * each(device, mean) / 3600 for each in (scoring, training)]
        lines.append(f"| {device.name} | {hours[0]:.1f} GPU-hours | {hours[1]:.1f} GPU-hours |")
    lines += ["", "| pictures | memory, scoring 8 at a time | memory, training | against the mean |", "|---|---|---|---|"]
    for images in (1, 2, 3, 5):
        ratio = training(DEVICES[0], images) / training(DEVICES[0], mean)
        held = [memory(images, training=each) / 1e9 for each in (False, True)]
        lines.append(f"| {images} | {held[0]:.0f} GB | {held[1]:.0f} GB | {ratio:.1f} x |")
    return lines


def check() -> None:
    """Count and time a small decoder's passes: by the formula, by torch, and which share of the peak they reach."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    torch.set_num_threads(1)
    small, tokens = Transformer(width=512, layers=3, inner=1376), 384
    layers = [
        [torch.randn(small.width, small.width) / 23 for _ in range(4)]
        + [torch.randn(small.width, small.inner) / 23 for _ in range(2)]
        + [torch.randn(small.inner, small.width) / 37]
        for _ in range(small.layers)
    ]
    embedded = torch.randn(tokens, small.width, requires_grad=True)

    def forward() -> torch.Tensor:
        hidden = embedded
        for query, key, value, out, gate, up, down in layers:
            q, k, v = ((hidden @ each).view(tokens, 8, -1).transpose(0, 1) for each in (query, key, value))
            weights = (q @ k.transpose(1, 2) / 8).softmax(-1)
            hidden = hidden + (weights @ v).transpose(0, 1).reshape(tokens, -1) @ out
            hidden = hidden + (torch.nn.functional.silu(hidden @ gate) * (hidden @ up)) @ down
        return hidden.sum()

    with FlopCounterMode(display=False) as counted, torch.no_grad():
        forward()
    with FlopCounterMode(display=False) as both:
        forward().backward()
    said = small.forward(tokens)
    print(f"forward: {said / 1e9:.2f} GFLOP by the formula, {counted.get_total_flops() / 1e9:.2f} counted")
    print(f"forward and backward: {both.get_total_flops() / counted.get_total_flops():.2f} times the forward")
    square = torch.randn(1024, 1024)
    peak = 2 * 1024**3 / seconds(lambda: square @ square)
    with torch.no_grad():
        one = seconds(forward)
    two = seconds(lambda: forward().backward())
    print(f"peak of matrix products: {peak / 1e9:.1f} GFLOP/s; forward reaches {said / one / peak:.0%}")
    print(f"forward and backward took {two / one:.2f} times as long")


def seconds(work: object) -> float:
    """Of this process, the shortest of three: other work on the machine does not count."""
    taken = []
    for _ in range(3):
        started = time.process_time()
        work()  # type: ignore[operator]
        taken.append(time.process_time() - started)
    return min(taken)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    check() if parser.parse_args().check else print("\n".join(tables()))
