"""The page of costs says what its script computes, and the script counts as one counts by hand."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def costs() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_cost", ROOT / "benchmarks" / "bench_cost.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["bench_cost"] = module  # dataclasses look there for their annotations
    spec.loader.exec_module(module)
    return module


def test_the_page_has_the_tables_of_the_script(costs):
    page = (ROOT / "docs" / "costs.md").read_text("utf-8")
    for line in costs.tables():
        assert line in page.splitlines()


def test_weights_and_passes_are_counted_as_by_hand(costs):
    assert costs.VICUNA.weights == 32 * (4 * 4096**2 + 3 * 4096 * 11008)  # 6.48 billion
    assert costs.VICUNA.forward(1000) == 2 * costs.VICUNA.weights * 1000 + 4 * 1000**2 * 4096 * 32
    assert costs.lora_weights() == 32 * 128 * (4 * (4096 + 4096) + 3 * (4096 + 11008))  # r = 128 on seven layers


def test_a_picture_more_costs_its_tokens(costs):
    [device] = [device for device in costs.DEVICES if device.name.startswith("A100")]
    more = costs.scoring(device, 3) - costs.scoring(device, 2)
    passes = costs.VICUNA.forward(3 * 576 + 60) - costs.VICUNA.forward(2 * 576 + 60) + costs.CLIP.forward(577)
    assert more == pytest.approx(passes / (312e12 * 0.4))
