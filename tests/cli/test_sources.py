from __future__ import annotations

import gzip
import json

from click.testing import CliRunner
from mia_augment.read.hub_rows import HubSet, hub_set
from mia_augment.records import Sample
from mia_augment.storage.files import read_jsonl
from mia_cli.config.schema import PipelineConfig, load_config
from mia_cli.main import main
from PIL import Image


def test_mia_augment_takes_a_folder_of_shards_packed_or_not(tmp_path):
    (tmp_path / "rows").mkdir()
    for n in range(4):
        Image.new("RGB", (20, 10), (60 * n, 0, 0)).save(tmp_path / f"{n}.png")
    rows = [json.dumps({"id": n, "image": f"{n}.png", "question": "What?", "answer": f"Thing {n}."}) for n in range(4)]
    (tmp_path / "rows" / "1.jsonl").write_text("\n".join(rows[:2]))
    (tmp_path / "rows" / "2.json.gz").write_bytes(gzip.compress(f"[{rows[2]}, {rows[3]}]".encode()))
    arguments = ["--source", tmp_path / "rows", "--image-root", tmp_path, "--out", tmp_path / "out", "--formats", "single"]
    result = CliRunner().invoke(main, ["augment", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    answers = sorted(sample.answer for sample in read_jsonl(tmp_path / "out" / "samples.jsonl", Sample))
    assert answers == [f"Thing {n}." for n in range(4)]


def test_a_data_set_of_the_hub_is_no_path_below_the_yaml_file(tmp_path):
    (tmp_path / "pipeline.yaml").write_text(
        "data: {source: 'hf://owner/name@v1:train'}\nevaluate: {source: 'hf://owner/name:test'}\n"
    )
    config = load_config(tmp_path / "pipeline.yaml")
    assert hub_set(config.data.source) == HubSet("owner/name", "v1", None, "train")
    assert hub_set(config.evaluate.source) == HubSet("owner/name", None, None, "test")
    again = PipelineConfig.model_validate(config.model_dump(mode="json"))  # as a process that shares a stage reads it
    assert again.data.source == config.data.source


def test_mia_augment_says_what_to_do_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    result = CliRunner().invoke(main, ["augment", "--source", "hf://owner/name", "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "where there is no network fetch it elsewhere" in result.stderr
