"""The exports through the loaders of the trainers that they are made for, where these are installed (TRL has its own test)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from mia_augment.records import PreferencePair, Region, Scores
from mia_augment.storage.files import Manifest, write_jsonl, write_manifest
from mia_select.export import export_pairs
from mia_select.importing import import_pairs
from PIL import Image

PROMPTS = ("Image1:<image>\nImage2:<image>\nIn Image2, what color?", "<image>\nIn Image1, what?")
CHOSEN, REJECTED = ("The color is green.", 'Blue "ja" größer.\u2028'), ("The color is red.", "Red.")
PICTURES = (("a.png", "b.png"), ("c.png",))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A pair over two pictures and one over a grid."""
    regions = [Region(image=0, label="Image1"), Region(image=1, label="Image2")]
    cells = [Region(image=0, box=(0, 0, 20, 32), label="Image1"), Region(image=0, box=(20, 0, 40, 32), label="Image2")]
    pairs = [
        PreferencePair(
            id=name, format=fmt, images=list(images), prompt=prompt, chosen=chosen, rejected=rejected, scores=Scores(),
            target=0, regions=parts,
        )
        for name, fmt, images, prompt, chosen, rejected, parts in zip(
            "sg", ("sequence", "grid"), PICTURES, PROMPTS, CHOSEN, REJECTED, (regions, cells), strict=True
        )
    ]  # fmt: skip
    (tmp_path / "photos").mkdir()
    for name in "abc":
        Image.new("RGB", (40, 32), (10 * ord(name) % 255, 0, 90)).save(tmp_path / "photos" / f"{name}.png")
    write_jsonl(tmp_path / "pairs" / "pairs.jsonl", pairs)
    write_manifest(
        tmp_path / "pairs", Manifest(stage="select", version="0", settings={}, inputs={}, image_folders=["../photos"])
    )
    return tmp_path / "pairs"


@pytest.mark.parametrize("images", ["absolute", "copy"])
def test_llama_factory_loads_the_export(folder: Path, tmp_path: Path, images: Any) -> None:
    loader = pytest.importorskip("llamafactory.data.loader", reason="llamafactory is not installed")
    from llamafactory.data.parser import get_dataset_list
    from llamafactory.hparams import DataArguments, ModelArguments
    from transformers import Seq2SeqTrainingArguments

    out = export_pairs(folder, "llama-factory", tmp_path / "out", images=images).parent
    data = DataArguments(dataset="mia_pairs", dataset_dir=str(out), media_dir=str(out), template="default")
    (attributes,) = get_dataset_list(data.dataset, str(out))
    training = Seq2SeqTrainingArguments(output_dir=str(tmp_path / "trained"), use_cpu=True)
    rows = list(loader._load_single_dataset(attributes, ModelArguments(model_name_or_path="none"), data, training))
    assert [row["_prompt"] for row in rows] == [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    assert [[answer["content"] for answer in row["_response"]] for row in rows] == [
        list(answers) for answers in zip(CHOSEN, REJECTED, strict=True)
    ]
    assert [[Path(path).name for path in row["_images"]] for row in rows] == [list(names) for names in PICTURES]
    assert all(Path(path).is_file() for row in rows for path in row["_images"])


@pytest.mark.parametrize("images", ["absolute", "copy"])
def test_ms_swift_loads_the_export(folder: Path, tmp_path: Path, images: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = pytest.importorskip("swift.dataset", reason="ms-swift is not installed")
    file = export_pairs(folder, "ms-swift", tmp_path / "out", images=images)
    monkeypatch.chdir(file.parent)  # ms-swift takes relative paths from where it is started
    rows, _ = dataset.load_dataset(str(file), split_dataset_ratio=0.0, load_from_cache_file=False, strict=True)
    assert [row["messages"] for row in rows] == [
        [{"role": "user", "content": prompt}, {"role": "assistant", "content": chosen}]
        for prompt, chosen in zip(PROMPTS, CHOSEN, strict=True)
    ]
    assert [row["rejected_response"] for row in rows] == list(REJECTED)
    assert [[Path(image["path"]).name for image in row["images"]] for row in rows] == [list(n) for n in PICTURES]
    assert all(Path(image["path"]).is_file() for row in rows for image in row["images"])


ASKED = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]
ROWS: dict[str, dict[str, Any]] = {
    "parts": {"prompt": ASKED, "chosen": [{"role": "assistant", "content": [{"type": "text", "text": "One"}]}]},
    "texts": {"prompt": [{"role": "user", "content": "What?"}], "chosen": [{"role": "assistant", "content": "One"}]},
    "implicit": {"chosen": [*ASKED, {"role": "assistant", "content": "One"}]},
    "prompt as text": {
        "prompt": "What?",
        "chosen": [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "One"}],
    },
    "implicit texts": {"chosen": "The digit is One"},
}


@pytest.mark.parametrize("kind", ROWS)
def test_a_row_of_trl_says_what_trl_reads_in_it(kind: str, tmp_path: Path) -> None:
    utils = pytest.importorskip("trl.data_utils", reason="trl is not installed")
    row = {**ROWS[kind], "rejected": json.loads(json.dumps(ROWS[kind]["chosen"]).replace("One", "Two"))}
    read = utils.maybe_extract_prompt(dict(row))
    if isinstance(read["prompt"], list):
        sides = {side: utils.prepare_multimodal_messages(read[side]) for side in ("chosen", "rejected")}
        sides["prompt"] = utils.prepare_multimodal_messages(read["prompt"], images=["a.png"])
        assert [len(messages) for messages in sides.values()] == [1, 1, 1]
        read = {
            side: "".join("<image>" if part["type"] == "image" else part["text"] for part in messages[0]["content"])
            for side, messages in sides.items()
        }
    else:
        read["prompt"] = f"<image>{read['prompt']}"
    (tmp_path / "rows.json").write_text(json.dumps([{**row, "images": ["a.png"]}]))
    (pair,) = import_pairs(tmp_path / "rows.json")
    assert {side: getattr(pair, side) for side in ("prompt", "chosen", "rejected")} == read
