"""Which model is meant, and what is said when it is none."""

from __future__ import annotations

import json

import pytest
from mia_augment.errors import ModelError
from mia_cli.models import fingerprint, load, model_folder


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
    from mia_cli import drawing

    model, processor = load("embedded")
    samples, pictures = [], {}
    for index, scene in enumerate(drawing.scenes("test")[::20]):
        pictures[str(index)] = drawing.draw(scene, random.Random(index))[0]
        source = Source(ids=["a"], paths=["a"], question=drawing.QUESTIONS["color"])
        asked = {"prompt": f"<image>\n{drawing.QUESTIONS['color']}", "answer": drawing.answer(scene, "color"), "target": 0}
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
    assert fingerprint("owner/name") == "owner/name"


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
    first = fingerprint(str(tmp_path))
    (tmp_path / "config.json").write_text("{ }")
    assert fingerprint(str(tmp_path)) != first


def test_a_device_that_is_not_there_is_told(tmp_path):
    with pytest.raises(ModelError, match="device cuda:77"):
        load("embedded", device="cuda:77")
