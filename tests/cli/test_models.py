"""Which model is meant, and what is said when it is none."""

from __future__ import annotations

import json
import re

import pytest
from mia_augment.errors import ConfigError, ModelError
from mia_cli.config.schema import ModelSettings
from mia_cli.loading.load import SharedModel, load, model_folder


def test_the_embedded_model_is_a_plain_folder(mia, tmp_path):
    folder = tmp_path / "model"
    assert mia("embedded", folder).exit_code == 0
    names = {path.name for path in folder.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "processor_config.json", "chat_template.jinja"} <= names
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 12_000_000


def test_the_embedded_model_is_not_written_over_other_files(mia, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    result = mia("embedded", tmp_path)
    assert result.exit_code == 2
    assert "empty folder" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_the_embedded_model_answers_a_question_about_a_drawing(tmp_path):
    import random

    from mia_attention import respond
    from mia_augment.records import Region, Sample, Source
    from mia_cli.drawn import drawing

    model, processor = load("embedded")
    samples, pictures = [], {}
    for index, scene in enumerate(drawing.scenes("test")[::20]):
        pictures[str(index)] = drawing.draw_scene(scene, random.Random(index))[0]
        source = Source(ids=["a"], paths=["a"], question=drawing.QUESTIONS["color"])
        asked = {"prompt": f"<image>\n{drawing.QUESTIONS['color']}", "answer": drawing.true_answer(scene, "color"), "target": 0}
        where = {"images": [str(index)], "regions": [Region(image=0, label="Image1")], "source": source}
        samples.append(Sample(id=str(index), format="single", **asked, **where))
    said = list(respond(samples, model, processor, open_image=pictures.__getitem__, max_new_tokens=12))
    right = sum(response.text == sample.answer for response, sample in zip(said, samples, strict=True))
    assert right >= 0.9 * len(samples)


@pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "a/b/c"])
def test_a_missing_folder_is_no_hub_name(name):
    with pytest.raises(ModelError, match="no such folder"):
        model_folder(name)


def test_a_hub_name_stays_one():
    assert model_folder("owner/name") is None
    assert SharedModel(ModelSettings(name="owner/name")).id == "owner/name auto"


def test_a_folder_without_a_configuration_is_told(tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json"):
        load(str(tmp_path))


def test_a_language_model_is_no_vision_language_model(tmp_path):
    import transformers

    config = transformers.LlamaConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=8
    )
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="cannot be used as a vision-language model"):
        load(str(tmp_path))


def test_pickled_weights_are_refused(tmp_path):
    """Unpickling runs code: only safetensors are read."""
    import torch

    embedded = model_folder("embedded")
    assert embedded is not None
    for file in embedded.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save(load("embedded")[0].state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        load(str(tmp_path))


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    mark = tmp_path / "ran"
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}))
    (tmp_path / "own.py").write_text(f"open({str(mark)!r}, 'w')")
    with pytest.raises(ModelError):
        load(str(tmp_path))
    assert not mark.exists()


def test_a_changed_file_changes_the_fingerprint(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    settings = ModelSettings(name=str(tmp_path), quantization="4bit")
    first = SharedModel(settings).id
    assert re.fullmatch(rf"{tmp_path.name} [0-9a-f]{{16}} auto 4bit", first)
    assert SharedModel(settings).id == first
    (tmp_path / "config.json").write_text("{ }")
    assert SharedModel(settings).id != first


def test_a_device_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ModelError, match="device cuda:77"):
        load("embedded", device="cuda:77")


def test_four_bits_without_bitsandbytes_name_the_extra(monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "bitsandbytes" else find(name, *rest))
    with pytest.raises(ConfigError, match=r"mia-dpo-train\[qlora\]"):
        load("embedded", quantization="4bit")


def test_four_bits_keep_the_vision_tower(tmp_path):
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="bitsandbytes is an optional dependency (extra qlora)")
    model, _ = load("embedded", device="cpu", quantization="4bit")
    names = [name for name, part in model.named_modules() if isinstance(part, bitsandbytes.nn.Linear4bit)]
    assert names
    assert all(".language_model." in name for name in names)


def test_quantization_makes_another_model():
    from mia_cli.config.schema import ModelSettings
    from mia_cli.loading.load import SharedModel

    assert SharedModel(ModelSettings(quantization="4bit")).id == SharedModel(ModelSettings()).id + " 4bit"


def test_quantization_and_qlora_go_together():
    from mia_cli.config.schema import PipelineConfig

    with pytest.raises(ValueError, match=r"model\.quantization is none"):
        PipelineConfig.model_validate({"train": {"tuning": "qlora"}})
    PipelineConfig.model_validate({"train": {"tuning": "qlora"}, "model": {"quantization": "4bit"}})


def test_what_training_lacks_is_said_before_the_model_loads(mia, tmp_path, monkeypatch):
    """No model of this name exists: what is missing for training is told first."""
    import importlib.util

    from mia_augment.storage.files import write_jsonl

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "wandb" else find(name, *rest))
    write_jsonl(tmp_path / "pairs" / "pairs.jsonl", [])
    (tmp_path / "train.yaml").write_text("trackers: [wandb]\n")
    command = ["train", "--pairs", tmp_path / "pairs", "--model", tmp_path / "none", "--config", tmp_path / "train.yaml"]
    result = mia(*command, "--out", tmp_path / "out")
    assert result.exit_code != 0
    assert "mia-dpo-train[wandb]" in result.stderr


def test_a_run_says_what_training_lacks_before_anything_is_made(mia, tmp_path, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "wandb" else find(name, *rest))
    (tmp_path / "rows.json").write_text("[]")
    file = tmp_path / "pipeline.yaml"
    file.write_text(
        "run_dir: run\ndata: {source: rows.json}\nmodel: {name: ./none}\ntrain: {trackers: [wandb]}\n", encoding="utf-8"
    )
    result = mia("run", file)
    assert result.exit_code != 0
    assert "mia-dpo-train[wandb]" in result.stderr
    assert not (tmp_path / "run").exists()


def test_export_prints_log_probs_without_beside_and_merged(mia, tmp_path):
    """What is printed is what the model, the adapter beside it and the written folder say of the same answer."""
    import re

    import torch
    from mia_dpo_train import export_merged
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model, _ = load("embedded", device="cpu")
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=r".*language_model.*q_proj", init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "trained" / "adapter")
    result = mia("export", "--merged", "--model", "embedded", "--adapter", tmp_path / "trained", "--out", tmp_path / "merged")
    assert result.exit_code == 0, result.stderr
    told = " ".join(result.stderr.split())
    numbers = re.search(r"answer of (\d+) tokens: (-\S+) by the model alone, (-\S+) with the adapter .*, (-\S+) merged", told)
    assert numbers, told
    tokens, base, beside, merged = map(float, numbers.groups())
    expected = export_merged(model_folder("embedded"), tmp_path / "trained" / "adapter", tmp_path / "again")
    assert tokens == expected.tokens
    assert (base, beside, merged) == pytest.approx((expected.base_logp, expected.adapter_logp, expected.merged_logp), abs=1e-4)
    assert abs(merged - beside) < 0.02 < 0.1 < abs(base - beside)
    assert "Loading weights" not in result.stderr
    last = result.stderr.strip().rpartition("export ")[2]
    assert last.strip().startswith("sound: the merged model, read back, answers as the adapter did")


def test_the_verdict_of_a_merge_is_none_where_the_adapter_changes_nothing(tmp_path):
    from mia_dpo_train import MergeReport

    unmoved = MergeReport(tmp_path, base_logp=-3.0, adapter_logp=-3.0001, merged_logp=-3.0, tokens=4)
    assert unmoved.verdict.startswith("no difference found, but")
    moved = MergeReport(tmp_path, base_logp=-3.0, adapter_logp=-2.0, merged_logp=-2.001, tokens=4)
    assert "differs by 0.0010 over 4 tokens; training changed it by 1.0000" in moved.verdict


def test_a_merged_model_is_not_written_over_other_files_unless_told(mia, tmp_path):
    """The folder is replaced as a whole: photographs in it would be gone."""
    adapter = tmp_path / "trained" / "adapter"
    adapter.mkdir(parents=True)
    out = tmp_path / "pictures"
    out.mkdir()
    (out / "holiday.jpg").write_text("mine")
    result = mia("export", "--merged", "--model", "embedded", "--adapter", tmp_path / "trained", "--out", out)
    assert result.exit_code == 2
    assert "--overwrite replaces all of it" in result.stderr
    assert (out / "holiday.jpg").read_text() == "mine"


def test_what_a_file_replaces_is_said(tmp_path):
    from mia_cli.commands.paths import replacement_note

    (tmp_path / "folder").mkdir()
    assert replacement_note(tmp_path / "none") == replacement_note(tmp_path / "folder") == ""
    (tmp_path / "folder" / "file").write_text("x")
    assert (
        replacement_note(tmp_path / "folder")
        == replacement_note(tmp_path / "folder" / "file")
        == ", which replaces what was there"
    )
