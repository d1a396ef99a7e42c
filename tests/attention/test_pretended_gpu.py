"""What a GPU does otherwise in scoring: memory that runs out anywhere, and which GPU is one's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from mia_attention.answering.batches import run_batches
from mia_attention.models import loading
from mia_augment.errors import ModelError


def numbers(items: Any) -> list[int]:
    return list(items)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ],
)
@pytest.mark.parametrize("where", ["prepare", "run"])
def test_memory_that_runs_out_anywhere_halves_the_batch(where: str, error: Exception) -> None:
    """Also where a batch is moved to the device, in the thread that prepares the next one."""
    sizes: list[int] = []

    def small(items: Any) -> list[int]:
        sizes.append(len(items))
        if len(items) > 2:
            raise error
        return list(items)

    steps = {"prepare": numbers, "run": numbers, where: small}
    assert list(run_batches([[1], [2, 3, 4, 5, 6], [7, 8]], **steps)) == [[1], [2, 3, 4, 5, 6], [7, 8]]
    assert sorted(sizes) == [1, 1, 2, 2, 2, 3, 5]


@pytest.mark.parametrize("where", ["prepare", "run"])
def test_a_single_prompt_that_does_not_fit_ends_with_what_to_change(where: str) -> None:
    def none(items: Any) -> list[int]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(ModelError, match="out of memory on a single prompt: CUDA out of memory; use a smaller model"):
        list(run_batches([[1, 2]], **{"prepare": numbers, "run": numbers, where: none}))


def test_what_failed_holds_no_memory_while_its_halves_run() -> None:
    class Held:
        alive = 0

        def __init__(self, items: Any) -> None:
            self.items = list(items)
            Held.alive += 1

        def __del__(self) -> None:
            Held.alive -= 1

    most: list[int] = []

    def run(held: Held) -> list[int]:
        most.append(Held.alive)
        if len(held.items) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return held.items

    assert list(run_batches([[1, 2]], Held, run)) == [[1, 2]]
    assert most == [1, 1, 1]


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_each_of_several_processes_takes_the_gpu_that_is_its_own(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`cuda` alone would be the first one for all of them."""
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    assert loading._device(name) == torch.device("cuda:1")
