"""`mia evaluate` on multiple-choice questions: the option that the embedded model holds most likely, computed here by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from click.testing import Result
from mia_augment.prompting.chat import render_prompt
from mia_augment.records import Sample
from mia_augment.storage.files import read_jsonl, write_jsonl
from mia_cli.drawn.drawn_data import write_rows
from mia_cli.loading.load import load
from mia_select.evaluation.accuracy import Prediction
from PIL import Image

COLORS = ["red", "blue", "green", "yellow"]


def test_the_likeliest_option_is_the_answer(mia: Callable[..., Result], tmp_path: Path) -> None:
    write_rows(tmp_path / "drawn", "test", 12, questions="one")
    out = tmp_path / "samples"
    source = ("--source", tmp_path / "drawn" / "rows.json", "--image-root", tmp_path / "drawn")
    assert mia("augment", *source, "--out", out, "--formats", "single", "--limit", "6").exit_code == 0
    lettered = " ".join(f"{letter}. The color is {color}." for letter, color in zip("ABCD", COLORS, strict=True))
    samples = [
        sample.model_copy(
            update={
                "prompt": f"<image>\nWhat color is it? {lettered}" if index < 4 else sample.prompt,
                "answer": f"The color is {COLORS[index % 4]}." if index < 4 else sample.answer,
            }
        )
        for index, sample in enumerate(read_jsonl(out / "samples.jsonl", Sample))
    ]
    write_jsonl(out / "samples.jsonl", samples)

    result = mia(
        "evaluate", "--samples", out, "--model", "embedded", "--out", tmp_path / "eval", "--max-new-tokens", "12", "--json"
    )
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "eval" / "manifest.json").read_text())["counts"]["by_likelihood"] == 4
    found = {p.id: p for p in read_jsonl(tmp_path / "eval" / "predictions.jsonl", Prediction)}

    model, processor = load("embedded")
    for sample in samples[:4]:
        picture = Image.open(tmp_path / "drawn" / sample.images[0]).convert("RGB")
        means = []
        for color in COLORS:
            prompt = render_prompt(processor, sample.prompt)
            tail = processor.tokenizer(f"The color is {color}.", add_special_tokens=False, return_tensors="pt").input_ids
            inputs = processor(images=[picture], text=[prompt], return_tensors="pt")
            ids = torch.cat([inputs["input_ids"], tail], 1)
            with torch.no_grad():
                logits = model(input_ids=ids, pixel_values=inputs["pixel_values"], attention_mask=torch.ones_like(ids)).logits
            steps = logits[0, -1 - tail.shape[1] : -1].log_softmax(-1)
            means.append(float(steps.gather(1, tail.T).mean()))
        best = COLORS[max(range(4), key=means.__getitem__)]
        assert found[sample.id].before == f"The color is {best}."
        assert found[sample.id].correct_before == (sample.answer == f"The color is {best}.")
    assert len({found[sample.id].before for sample in samples[:4]}) > 1  # it looks at the pictures
    assert found[samples[5].id].before.startswith("The ")
