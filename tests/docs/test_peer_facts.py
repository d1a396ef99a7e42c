"""What docs/comparison.md says of other trainers, asked of those installed: where one changes, the page is to be read again."""

from __future__ import annotations

import importlib.util
import inspect
import re
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

PAGE = (Path(__file__).parents[2] / "docs" / "comparison.md").read_text("utf-8")
AGAIN = "docs/comparison.md was written of another version: read the trainer again, mend the page, then this test"


def said(pattern: str) -> str:
    """What the page says in the group of a pattern."""
    found = re.search(pattern, PAGE)
    assert found is not None, f"docs/comparison.md no longer says {pattern!r}"
    return found[1]


def trl_trainer() -> Any:
    return pytest.importorskip("trl.trainer.dpo_trainer", reason="TRL is not installed")


def test_the_page_is_about_this_trl() -> None:
    trl_trainer()
    assert version("trl") == said(r"TRL (\d+\.\d+\.\d+), installed"), AGAIN
    assert version("trl").startswith(said(r"\| TRL (\d+\.\d+) \|")), AGAIN


def test_trl_repeats_the_pictures_for_each_answer() -> None:
    """Its collator hands the processor every picture and prompt twice: for the chosen answers, then for the rejected."""
    collator = trl_trainer().DataCollatorForVisionPreference
    asked: list[dict[str, Any]] = []

    def process(**given: Any) -> dict[str, torch.Tensor]:
        asked.append(given)
        ids = torch.ones(len(given["text"]), 2, dtype=torch.long)
        return {"input_ids": ids, "attention_mask": ids}

    class Processor:
        tokenizer = SimpleNamespace(pad_token_id=0, eos_token_id=0)
        __call__ = staticmethod(process)

    examples = [{"prompt": f"<image> {name}?", "chosen": "a", "rejected": "b", "images": [name]} for name in "xy"]
    made = collator(Processor()).torch_call(examples)
    assert asked[0]["images"] == [["x"], ["y"], ["x"], ["y"]], AGAIN
    assert asked[0]["text"] == ["<image> x?", "<image> y?"] * 2, AGAIN
    assert len(made["input_ids"]) == 4, AGAIN


def test_trl_refuses_to_store_reference_log_probs_of_pictures() -> None:
    source = inspect.getsource(trl_trainer().DPOTrainer.__init__)
    refusal = re.search(r"if self\._is_vision_dataset and args\.precompute_ref_log_probs:\s+raise ValueError", source)
    assert refusal is not None, AGAIN


def test_trls_padding_free_batches_are_switched_off() -> None:
    source = inspect.getsource(trl_trainer().DPOTrainer.__init__)
    assert "temporarily unavailable" in source, AGAIN
    assert "self.padding_free = False" in source, AGAIN


def test_llama_factory_runs_the_reference_in_each_step() -> None:
    trainer = peer_file("llamafactory", "train/dpo/trainer.py")
    collator = peer_file("llamafactory", "data/collator.py")
    assert "self.precompute_ref_log_probs = False" in trainer, AGAIN
    assert "compute_reference_log_probs" in trainer, AGAIN
    assert "class PairwiseDataCollatorWithPadding" in collator, AGAIN


def test_ms_swift_refuses_to_store_reference_log_probs() -> None:
    """Since its pull request 10196 it raises; before, the flag was read and used nowhere else."""
    trainer = peer_file("swift", "rlhf_trainers/dpo_trainer.py")
    uses = re.findall(r"precompute_ref_log_probs", trainer)
    assert "precompute_ref_log_probs" in trainer, AGAIN
    assert re.search(r"raise ValueError\([^)]*precompute_ref_log_probs", trainer) or len(uses) == 2, AGAIN


def peer_file(package: str, path: str) -> str:
    """A source file of a peer, read without importing it; the test is skipped where the peer is not installed."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"{package} is not installed")
    file = Path(found.submodule_search_locations[0]) / path
    assert file.is_file(), f"{file} is not there. {AGAIN}"
    return file.read_text("utf-8")
