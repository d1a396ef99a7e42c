"""`mia init`: values that suit a model, a file that holds what people change, and what is said beside it."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest
import yaml
from mia_cli.config.commented_yaml import CHANGED_MOST
from mia_cli.config.schema import PipelineConfig, load_config
from mia_cli.config.suited import suited_settings
from mia_cli.drawn.quickstart import BEST, SETTINGS

CACHED = "/home/me/.cache/huggingface/hub/models--llava-hf--llava-1.5-7b-hf/snapshots/b234b804b114d9e37bb655e11cbbb5f5e971b7a9"


@pytest.fixture
def out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_answer(*_: object, **__: object) -> None:
        raise ConnectionError("name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", no_answer)
    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: False)


@pytest.mark.parametrize("name", ["llava-hf/llava-1.5-7b-hf", "/models/llava-v1.5-13b", "me/LLaVA_1.5-tuned", CACHED])
def test_the_paper_s_thresholds_are_for_its_model_alone(name):
    values = suited_settings(name, lambda: 8).values
    assert values["select"] == {"calibrate": None, "min_perplexity": 1.1}
    assert values["score"] == {"layer": "middle"}


@pytest.mark.parametrize("name", ["Qwen/Qwen2.5-VL-7B-Instruct", "llava-hf/llava-v1.6-mistral-7b-hf", "/runs/llava-1.5/qwen"])
def test_any_other_model_s_come_from_its_own_answers(name):
    values = suited_settings(name, lambda: 1).values
    assert values["select"] == {"calibrate": "auto", "min_perplexity": None}
    assert values["score"] == {"layer": "auto"}


@pytest.mark.parametrize(("processes", "accumulation"), [(1, 64), (2, 32), (3, 21), (8, 8), (100, 1)])
def test_a_step_has_the_paper_s_64_pairs_whatever_the_number_of_processes(processes, accumulation):
    train = suited_settings("owner/model", lambda: processes).values["train"]
    assert train == {"per_device_batch_size": 1, "accumulation": accumulation}


def test_the_embedded_model_gets_the_quickstart_s_values(mia, tmp_path):
    path = tmp_path / "pipeline.yaml"
    assert mia("init", path, "--model", "embedded").exit_code == 0
    written = yaml.safe_load(path.read_text())
    assert {name: written[name] for name in ("score", "select", "train")} == {
        name: {**SETTINGS[name], **BEST[name]} for name in ("score", "select", "train")
    }


def test_a_model_that_cannot_be_had_now_is_told_and_the_file_is_written(mia, tmp_path, out_of_reach):
    path = tmp_path / "pipeline.yaml"
    result = mia("init", path, "--model", "owner/model", "--processes", "4")
    assert result.exit_code == 0
    assert "note: the model cannot be loaded yet: model owner/model: not stored on this machine" in result.stderr
    config = load_config(path)
    assert (config.model.name, config.train.accumulation, config.launch.processes) == ("owner/model", 16, 4)
    assert "the paper's thresholds hold for LLaVA-1.5" in " ".join(path.read_text().replace("# ", "").split())


def test_a_model_that_never_loads_is_refused_and_nothing_is_written(mia, tmp_path):
    import transformers

    config = transformers.LlamaConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=8
    )
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "text")
    path = tmp_path / "pipeline.yaml"
    result = mia("init", path, "--model", tmp_path / "text")
    assert result.exit_code == 2
    assert "cannot be used as a vision-language model" in result.stderr
    assert not path.exists()


@pytest.mark.parametrize("command", ["run", "ablate"])
def test_a_run_whose_model_cannot_be_loaded_says_so_before_anything_is_composed(mia, tmp_path, out_of_reach, command):
    from mia_cli.drawn.drawn_data import write_rows

    write_rows(tmp_path / "data", "train", 12, questions="one")
    path = tmp_path / "pipeline.yaml"
    path.write_text("model: owner/model\ndata: {source: data/rows.json}\n")
    result = mia(command, path)
    assert result.exit_code == 2
    assert "owner/model: not stored on this machine" in result.stderr
    assert not (tmp_path / "run" / "augment").exists()


def test_what_was_given_stands_set_and_only_what_is_missing_is_asked_for(mia, tmp_path):
    path = tmp_path / "pipeline.yaml"
    (tmp_path / "rows.json").write_text("[]")
    result = mia("init", path, "--source", tmp_path / "rows.json", "--image-root", tmp_path)
    written = yaml.safe_load(path.read_text())["data"]
    assert written == {"source": str(tmp_path / "rows.json"), "image_root": str(tmp_path)}
    assert "set data.source" not in result.output
    assert "note" not in result.output
    assert "next: set data.source" in mia("init", path, "--force").output
    assert "data.source: nowhere.json is not there yet" in mia("init", path, "--force", "--source", "nowhere.json").output


def test_a_path_given_from_where_one_stands_is_written_from_where_the_file_lies(mia, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("rows.json").write_text("[]")
    assert mia("init", "deep/er/pipeline.yaml", "--source", "rows.json").exit_code == 0
    assert load_config(Path("deep/er/pipeline.yaml")).data.source == tmp_path / "rows.json"


def test_the_short_file_has_what_people_change_and_all_has_all(mia, tmp_path):
    def keys(*options: str) -> set[str]:
        path = tmp_path / "pipeline.yaml"
        assert mia("init", path, "--force", *options).exit_code == 0
        text = path.read_text().replace("#", "").splitlines()
        return {line.split(":")[0].strip() for line in text if ":" in line}

    short, whole = keys(), keys("--all")
    assert {name.rpartition(".")[2] for name in CHANGED_MOST} <= short
    assert "label_smoothing" not in short
    assert set(PipelineConfig().train.model_dump()) <= whole


def test_keys_of_the_short_file_exist():
    for name in CHANGED_MOST:
        value = PipelineConfig()
        for part in name.split("."):
            assert part in type(value).model_fields, name
            value = getattr(value, part)


def test_a_recipe_decides_before_the_model_s_values(mia, tmp_path):
    path = tmp_path / "pipeline.yaml"
    assert mia("init", path, "--model", "embedded", "--recipe", "own").exit_code == 0
    assert load_config(path).score.layer == "alone"
    assert load_config(path).train.tuning == "full"
