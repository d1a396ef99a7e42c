"""`mia doctor` on a pipeline.yaml: what `mia run` would use."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from click.testing import CliRunner, Result
from mia_cli.config.schema import PipelineConfig
from mia_cli.inspection.planned_run import planned_run
from mia_cli.main import main


def told(**settings) -> dict[str, str]:
    return {check.what: check.text for check in planned_run(PipelineConfig.model_validate(settings))}


def doctor(path: Path) -> Result:
    return CliRunner().invoke(main, ["doctor", str(path), "--json"], catch_exceptions=False)


def test_one_process_on_a_cpu():
    found = told(model={"device": "cpu"}, data={"workers": 3})
    assert found["run: processes"] == "1; 3 to compose pictures"
    assert found["run: device"].startswith("cpu, ")
    assert found["run: precision"] == "model in float32; training in fp32"
    assert "GB free of memory" in found["run: memory"]
    assert found["run: answers"] == "generated here, with attention read meanwhile"


def test_several_processes_and_what_is_set():
    found = told(
        model={"device": "cpu", "dtype": "bfloat16"},
        launch={"processes": 3},
        train={"precision": "bf16", "attn_implementation": "eager"},
        score={"answers": {"url": "http://127.0.0.1:8000/v1", "model": "m", "concurrency": 7}},
        evaluate={"trained_answers": {"file": "said.jsonl"}},
    )
    assert found["run: processes"] == "3 for score, attention, train and evaluate, started by torchrun; 1 to compose pictures"
    assert found["run: precision"] == "model in bfloat16; training in bf16 autocast"
    assert "train eager, route auto" in found["run: attention"]
    assert "x 3 processes" in found["run: memory"]
    assert found["run: answers"].startswith(
        "from http://127.0.0.1:8000/v1 (m), at most 7 requests open; read by the model here"
    )
    assert found["run: answers before training"].startswith("generated here")
    assert found["run: answers after it"].startswith("from said.jsonl")


def test_eight_gpus(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: True)
    monkeypatch.setattr("torch.accelerator.current_accelerator", lambda: SimpleNamespace(type="cuda"))
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda index: "H100")
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda index: (70 << 30, 80 << 30))
    found = told(model={"name": "owner/name"})
    assert found["run: processes"].startswith("8 for score, attention, train and evaluate, started by Accelerate's launcher")
    assert found["run: device"] == "cuda, 8 seen here: H100"
    assert found["run: precision"] == "model in bfloat16; training in bf16 autocast"
    assert found["run: memory"].startswith("70.0 GB free on each GPU")


def test_what_would_stop_the_run_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump({"model": {"device": "cpu"}, "launch": {"nodes": 2}}))
    for place in (tmp_path, tmp_path / "pipeline.yaml"):
        result = doctor(place)
        assert result.exit_code == 1
        [check] = [check for check in json.loads(result.stdout) if check["what"] == "run: processes"]
        assert check["state"] == "missing"
        assert "`mia slurm` writes a script" in check["text"]


def test_no_gpu_for_the_memory_of_a_large_model_is_a_note(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mia_cli.inspection.planned_run._free_memory", lambda: 1000)
    [check] = [c for c in planned_run(PipelineConfig.model_validate({"model": {"device": "cpu"}})) if c.what == "run: memory"]
    assert check.state == "note"
    assert "too little" in check.text
