"""The package's README: its example runs, and importing the package loads no torch."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import mia_attention
import pytest

README = Path(__file__).parents[2] / "packages" / "mia-attention" / "README.md"


@pytest.mark.parametrize(("place", "printed"), [(0, r".*\[0\.\d+, 0\.\d+\]"), (1, r"\[0\.\d+, 0\.\d+\] 0\.\d+")])
def test_the_examples_run(
    tiny: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    place: int,
    printed: str,
) -> None:
    code = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)[place]
    build = tiny.build("llava")
    build.model.save_pretrained(tmp_path / "model")
    build.processor.save_pretrained(tmp_path / "model")
    for name in ("street.jpg", "cat.jpg"):
        tiny.picture(90, 60).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    exec(code.replace("llava-hf/llava-1.5-7b-hf", "model"), {})
    assert re.search(printed, capsys.readouterr().out)
    assert (tmp_path / "where.html").is_file() == (place == 0)


def test_every_public_name_is_there() -> None:
    for name in mia_attention.__all__:
        found = getattr(mia_attention, name)
        assert found if name.isupper() else found.__name__ == name
    with pytest.raises(AttributeError, match="nothing"):
        _ = mia_attention.nothing


def test_settings_are_read_without_torch() -> None:
    code = "import sys, mia_attention, mia_attention.settings; assert 'torch' not in sys.modules and dir(mia_attention)"
    subprocess.run([sys.executable, "-c", code], check=True)
