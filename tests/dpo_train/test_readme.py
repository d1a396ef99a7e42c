from __future__ import annotations

import re
from pathlib import Path

from peft import PeftModel


def test_the_readmes_example_runs(build, pairs_folder, tmp_path, monkeypatch):
    model, processor = build("llava")
    model.save_pretrained(tmp_path / "MODEL")
    processor.save_pretrained(tmp_path / "MODEL")
    readme = Path(__file__).parents[2] / "packages" / "mia-dpo-train" / "README.md"
    (example,) = re.findall(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), re.S)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(example, names)
    assert names["manifest"].counts["pairs"] == 9
    assert PeftModel.from_pretrained(model, str(tmp_path / "trained" / "adapter"))
