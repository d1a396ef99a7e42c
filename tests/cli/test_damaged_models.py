"""Checkpoints and adapters with a damaged file: one message that names the model, whatever the libraries raise at it."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest
from bad_inputs import CONTENTS
from mia_augment.errors import ModelError
from mia_augment.prompting import template_check as templates
from mia_cli.config.schema import ModelSettings
from mia_cli.evaluate import load_trained
from mia_cli.loading.load import EMBEDDED_FOLDER, SharedModel, load

KINDS = ("empty", "junk", "list", "object", "cut", "latin-1", "deep", "zip", "lfs pointer", "web page")
FILES = sorted(path.name for path in EMBEDDED_FOLDER.iterdir() if path.suffix in (".json", ".safetensors"))


@pytest.fixture
def copy(tmp_path) -> Path:
    shutil.copytree(EMBEDDED_FOLDER, tmp_path / "model")
    return tmp_path / "model"


def refused(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load(str(folder))
    assert str(folder) in str(caught.value)
    assert len(str(caught.value)) < 1500
    return str(caught.value)


@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_of_a_checkpoint(copy, file):
    whole = (copy / file).read_bytes()
    for content in (*(CONTENTS[kind] for kind in KINDS), whole[: len(whole) // 2], whole[:-1]):
        (copy / file).write_bytes(content)
        with contextlib.suppress(ModelError):  # the libraries can do without some files
            load(str(copy))


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.5, 0.999])
def test_weights_that_are_cut_off_are_named(copy, keep):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    said = refused(copy)
    assert "model.safetensors" in said
    assert "download it again" in said


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m['content'] }",
        "{{ raise_exception('no') }}",
        "{{ 1 // 0 }}",
        "{{ messages[7]['role'] }}",
        "{{ messages.no.such.thing }}",
        "{% include 'other' %}",
        "{{ ''.__class__.__mro__ }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_a_broken_chat_template(copy, template):
    (copy / "chat_template.jinja").write_text(template)
    assert "template" in refused(copy)


LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (LOOP, "does not end within 0.5 seconds"),
        ("{% set n = namespace(s='xxxxxxxx') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}{{ n.s }}", "MB"),
        ("{{ 'x' * 200000 }}{% for m in messages %}{{ m['content'] }}{% endfor %}", "characters of a short question"),
    ],
)
def test_a_chat_template_that_does_not_end_or_fills_the_memory(copy, monkeypatch, template, said):
    monkeypatch.setattr(templates, "SECONDS", 0.5 if "end" in said else 60.0)
    monkeypatch.setattr(templates, "MEMORY", 128 << 20)
    (copy / "chat_template.jinja").write_text(template)
    assert said in refused(copy)


def test_looking_at_a_template_leaves_no_trace(copy):
    import resource
    import sys

    before = (sys.gettrace(), resource.getrlimit(resource.RLIMIT_AS))
    load(str(copy))
    assert (sys.gettrace(), resource.getrlimit(resource.RLIMIT_AS)) == before


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_damaged_adapter(tmp_path, file):
    from peft import LoraConfig, get_peft_model

    shared = SharedModel(ModelSettings(name="embedded"))
    model, _ = shared.get()
    get_peft_model(model, LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    whole = (tmp_path / "adapter" / file).read_bytes()
    for content in (*(CONTENTS[kind] for kind in KINDS), whole[: len(whole) // 2]):
        (tmp_path / "adapter" / file).write_bytes(content)
        shared.release()
        with pytest.raises(ModelError, match="adapter"):
            load_trained(shared, tmp_path / "adapter")
