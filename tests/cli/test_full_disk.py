"""A full disk, the system's limit on files standing in for it: every command that writes names the file and says what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from bad_inputs import sound_run

LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then writing on fails with an error, as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
from mia_cli.main import main
main(sys.argv[2:], prog_name="mia")
"""


@pytest.mark.parametrize("most", [0, 100, 3000])
@pytest.mark.parametrize(
    "line",
    [
        "augment --source rows.json --image-root . --out out",
        "export --pairs run/select --format trl --out out",
        "export --pairs run/select --format parquet --out out",
        "import found.jsonl --out out",
        "embedded out",
        "init --force out.yaml",
        "report run --out out.html",
        "quickstart --pictures 10 --test-pictures 10 out",
    ],
)
def test_what_cannot_be_written_is_named(tmp_path, line, most):
    if sys.platform == "win32":
        pytest.skip("no such limit")
    sound_run(tmp_path / "all")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(most), *line.split()],
        cwd=tmp_path / "all",
        capture_output=True,
        text=True,
        timeout=60,
    )
    if most == 3000 and done.returncode == 0:
        return  # what it writes is smaller
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(("error: out", "error: .out.tmp/")), done.stderr
    assert "File too large" in last or "cannot be written" in last
    assert not list(Path(tmp_path / "all").rglob("*.tmp"))
