"""The code of docs/heads-and-causes.md runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from mia_augment.records import Region, Sample, Source
from PIL import Image
from tiny_models import build

PAGE = Path(__file__).parents[2] / "docs" / "heads-and-causes.md"
NAMES = ["a", "b", "c"]


def open_image(name: str) -> Image.Image:
    return Image.fromarray(np.random.default_rng(ord(name)).integers(0, 255, (56, 56, 3), dtype=np.uint8))


def sample(number: int) -> Sample:
    names = [NAMES[number % 3], NAMES[(number + 1) % 3]]
    regions = [Region(image=0, label="Image1"), Region(image=1, label="Image2")]
    source = Source(ids=["1", "2"], paths=names, question="what is on the left ?")
    prompt = "Image1:<image>\nImage2:<image>\nIn Image2 , what is on the left ?"
    return Sample(
        id=str(number),
        format="sequence",
        images=names,
        prompt=prompt,
        answer="cat",
        regions=regions,
        target=1,
        source=source,
    )


def test_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    made = build("llava", strong=True)
    given = {
        "samples": [sample(number) for number in range(4)],
        "model": made.model,
        "processor": made.processor,
        "open_image": open_image,
    }
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 6
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), given)
    out = capsys.readouterr().out
    assert len(re.findall(r"without Image[12] the answer loses -?[\d.]+ nats", out)) == 8
    assert "torch.Size([1, 7, 4, " in out
