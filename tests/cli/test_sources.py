from __future__ import annotations

import gzip
import json

from click.testing import CliRunner
from mia_augment.records import Sample
from mia_augment.storage.files import read_jsonl
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
