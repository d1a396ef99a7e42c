"""The evaluation's folder: one process at a time, and asked anew when a held-out picture was replaced."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from mia_augment.errors import ConfigError, DataError
from mia_augment.files import Manifest, write_jsonl, write_manifest
from mia_augment.lock import only_writer
from mia_augment.records import Region, Sample, Source
from mia_cli.config import EvaluateSettings
from mia_cli.evaluate import evaluate_samples
from PIL import Image


def respond(prompts, model, processor, *, open_image, batch_size, max_new_tokens) -> Iterator[SimpleNamespace]:
    """Answers with the colour of the picture."""
    return iter([SimpleNamespace(text=str(open_image(p.images[0]).getpixel((0, 0))[0]), perplexity=1.5) for p in prompts])


@pytest.fixture
def samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("mia_attention.try_respond", respond, raising=False)
    folder = tmp_path / "held_out"
    records = [
        Sample(
            id=str(number), format="single", images=[f"{number}.png"], prompt="<image>\nWhat?", answer="10", target=0,
            regions=[Region(image=0, label="Image1")], source=Source(ids=["a"], paths=[f"{number}.png"], question="What?"),
        )
        for number in range(2)
    ]  # fmt: skip
    write_jsonl(folder / "samples.jsonl", records)
    for number in range(2):
        Image.new("RGB", (4, 4), (10, 0, 0)).save(folder / f"{number}.png")
    write_manifest(folder, Manifest(stage="augment", version="1", settings={}, inputs={}, counts={"samples": 2}))
    return folder


def evaluate(samples: Path, out: Path) -> list[str]:
    shared = SimpleNamespace(id="m", get=lambda: (None, None), settings=None)
    evaluate_samples(samples, shared, None, out, EvaluateSettings(), progress=lambda *_: None)  # type: ignore[arg-type]
    return (out / "predictions.jsonl").read_text().splitlines()


def test_a_replaced_picture_is_asked_about_again(samples, tmp_path):
    first = evaluate(samples, tmp_path / "out")
    assert evaluate(samples, tmp_path / "out") == first
    Image.new("RGB", (4, 4), (20, 0, 0)).save(samples / "1.png")
    again = evaluate(samples, tmp_path / "out")
    assert again[0] == first[0]
    assert '"before":"20"' in again[1]


def test_predictions_that_were_cut_are_made_again(samples, tmp_path):
    first = evaluate(samples, tmp_path / "out")
    (tmp_path / "out" / "predictions.jsonl").write_text(first[0] + "\n")
    assert evaluate(samples, tmp_path / "out") == first


def test_held_out_samples_that_were_cut_are_refused(samples, tmp_path):
    lines = (samples / "samples.jsonl").read_text().splitlines()
    (samples / "samples.jsonl").write_text(lines[0] + "\n")
    with pytest.raises(DataError, match=r"expected 2 records, as manifest.json counts them, found 1"):
        evaluate(samples, tmp_path / "out")


def test_a_second_evaluation_in_the_folder_is_refused(samples, tmp_path):
    with only_writer(tmp_path / "out"), pytest.raises(ConfigError, match="another process is writing here"):
        evaluate(samples, tmp_path / "out")
    assert len(evaluate(samples, tmp_path / "out")) == 2
