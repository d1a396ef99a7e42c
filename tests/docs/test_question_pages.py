"""The code of the pages about heads and knockouts runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from mia_augment.records import Region, Sample, Source
from PIL import Image
from tiny_models import build

DOCS = Path(__file__).parents[2] / "docs"
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


def run(page: str) -> int:
    """Execute a page's code blocks, one after the other, on four samples and a tiny model; returns their number."""
    made = build("llava", strong=True)
    given = {
        "samples": [sample(number) for number in range(4)],
        "model": made.model,
        "processor": made.processor,
        "open_image": open_image,
    }
    path = DOCS / page
    blocks = re.findall(r"```python\n(.*?)```", path.read_text("utf-8"), re.DOTALL)
    for block in blocks:
        exec(compile(block, str(path), "exec"), given)
    return len(blocks)


def test_the_page_about_heads_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("which-head-finds-the-named-image.md") == 3
    out = capsys.readouterr().out
    assert "torch.Size([1, 7, 4, " in out
    assert len(re.findall(r"^massive [\d.]+ [\d.]+$", out, re.MULTILINE)) == 4
    assert (tmp_path / "heads.png").is_file()


def test_the_page_about_knockouts_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("did-it-use-image-2.md") == 4
    out = capsys.readouterr().out
    assert len(re.findall(r"without Image[12] the answer loses -?[\d.]+ nats", out)) == 10
    assert out.count("other images {0: ") == 1
