"""Seconds and peak memory of a piece of work; attempts that say why they failed."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import torch


def free(device: str) -> None:
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def measure(work: Callable[[], Any], device: str) -> tuple[float, float | None]:
    """Seconds, and GiB allocated at most (None on a CPU); the device's queue is drained at both ends."""
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    work()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - started, torch.cuda.max_memory_allocated() / 2**30 if cuda else None


def attempt(work: Callable[[], dict[str, Any]], device: str) -> dict[str, Any]:
    """What the work measured, or why not: one way that this machine cannot run must not cost the others."""
    try:
        return work()
    except Exception as error:  # of any library that is compared
        return {"left_out": f"{type(error).__name__}: {str(error).strip()[:160]}"}
    finally:
        free(device)


def matmul_flops(device: str) -> float:
    """FLOP/s of a large bf16 matrix product on this device."""
    size = 8192 if device.startswith("cuda") else 256
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    measure(lambda: [a @ b for _ in range(3)], device)
    return 10 * 2 * size**3 / measure(lambda: [a @ b for _ in range(10)], device)[0]
