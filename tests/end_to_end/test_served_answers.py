"""Answers from a real server: `transformers serve` on this machine, with the embedded model."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from mia_augment.records import ScoredSample
from mia_augment.storage import read_jsonl
from mia_cli.drawn.drawn_data import write_rows

EMBEDDED = Path(__file__).parents[2] / "packages/mia-cli/src/mia_cli/embedded"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", "--host", "127.0.0.1", "--port", str(port),
               "--device", "cpu", "--dtype", "float32", str(EMBEDDED)]  # fmt: skip
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(240):
            assert process.poll() is None, "the server ended by itself"
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                    break
            except OSError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def samples(tmp_path: Path, mia: Callable[..., Result]) -> Path:
    """A sample of each format and number of pictures, drawn."""
    write_rows(tmp_path / "data", "train", 40)
    rows, out = tmp_path / "data/rows.json", tmp_path / "samples"
    made = mia("augment", "--source", rows, "--image-root", tmp_path / "data", "--out", out, "--per-bucket", 1)
    assert made.exit_code == 0, made.output
    return out


def test_a_real_server_gives_the_answers_and_figures_of_local_generation(
    server: str, samples: Path, tmp_path: Path, mia: Callable[..., Result]
) -> None:
    local = mia(
        "score", "--samples", samples, "--model", "embedded", "--dtype", "float32", "--out", tmp_path / "local", "--own-answer"
    )
    assert local.exit_code == 0, local.output
    there = ["--answers-url", server, "--answers-model", EMBEDDED]
    served = mia(
        "score",
        "--samples",
        samples,
        "--model",
        "embedded",
        "--dtype",
        "float32",
        "--out",
        tmp_path / "served",
        "--own-answer",
        *there,
    )
    assert served.exit_code == 0, served.output
    here, given = (list(read_jsonl(tmp_path / name / "scored.jsonl", ScoredSample)) for name in ("local", "served"))
    assert len(here) == len(given) >= 8
    for one, other in zip(here, given, strict=True):
        assert (one.id, one.response, one.response_ids, one.own_answer) == (
            other.id, other.response, other.response_ids, other.own_answer,
        )  # fmt: skip
        assert other.mean_logp == pytest.approx(one.mean_logp, abs=1e-4)
        assert other.attention.ratio == pytest.approx(one.attention.ratio, abs=1e-4)


def test_held_out_questions_can_be_put_to_a_server(
    server: str, samples: Path, tmp_path: Path, mia: Callable[..., Result]
) -> None:
    options = ["--samples", samples, "--model", "embedded", "--dtype", "float32", "--choices", "answer"]
    local = mia("evaluate", *options, "--out", tmp_path / "local")
    served = mia("evaluate", *options, "--out", tmp_path / "served", "--answers-url", server, "--answers-model", EMBEDDED)
    assert local.exit_code == served.exit_code == 0, served.output
    assert (tmp_path / "served/predictions.jsonl").read_bytes() == (tmp_path / "local/predictions.jsonl").read_bytes()
