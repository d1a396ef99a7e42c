"""Scoring on a device of its own: nothing meets a tensor of the CPU, and the numbers are the CPU's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pretend_device
import pytest
import tiny_models
import torch
from mia_attention import ScoreSettings, score
from mia_attention.answering import batches
from mia_attention.answering.batches import run_batches
from mia_attention.models import loading
from mia_augment.errors import ModelError

CLEAN = ScoreSettings(disturb=False, batch_size=2, max_new_tokens=4, layer=2)


def samples(tiny: SimpleNamespace) -> list[Any]:
    return [tiny.sequence("s2", ["a.png", "b.png"], 1), tiny.sequence("s3", ["a.png", "b.png", "c.png"], 0), tiny.grid("g")]


@pytest.fixture
def on_both(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What some work with a model and its processor gives on the CPU and elsewhere."""

    def on_both(name: str, work: Any) -> tuple[Any, Any]:
        here, there = tiny_models.build(name), tiny_models.build(name)
        expected = work(here.model.eval(), here.processor)
        monkeypatch.setattr(batches, "ThreadPoolExecutor", pretend_device.Executor)
        with pretend_device.pretended():
            return expected, work(pretend_device.moved(there.model.eval()), there.processor)

    return on_both


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llava", {}),
        ("llava", {"layer": "rollout"}),
        ("llava", {"layer": "gradient"}),
        ("llava", {"layer": "alone"}),
        ("llava", {"rows": "question", "confusions": True}),
        ("qwen2_5_vl", {}),
        ("qwen2_5_vl", {"layer": "gradient"}),
        ("gemma3", {"value_weighted": True}),
    ],
)
def test_scoring_never_mixes_devices(tiny: SimpleNamespace, on_both: Any, family: str, changes: dict[str, Any]) -> None:
    settings = CLEAN.model_copy(update=changes)
    expected, found = on_both(
        family, lambda model, processor: list(score(samples(tiny), model, processor, settings, open_image=tiny.open_image))
    )
    assert len(expected) == len(found) == 3
    for here, there in zip(expected, found, strict=True):
        assert here.response_tokens == there.response_tokens
        assert here.mean_logp == pytest.approx(there.mean_logp, abs=1e-4)
        assert here.attention.ratio == pytest.approx(there.attention.ratio, abs=1e-4)


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
