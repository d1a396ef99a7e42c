from __future__ import annotations

import pytest
import torch
from mia_augment.errors import DataError, ModelError
from mia_dpo_train import LoraSettings, TrainSettings, export_merged, train


@pytest.fixture
def trained(build, pairs, open_picture, tmp_path):
    model, processor = build("llava")
    model.save_pretrained(tmp_path / "base")
    processor.save_pretrained(tmp_path / "base")
    settings = TrainSettings(
        lora=LoraSettings(r=4, alpha=8), learning_rate=1e-2, epochs=2, per_device_batch_size=3, accumulation=1,
        gradient_checkpointing=False, trackers=[],
    )  # fmt: skip
    train(pairs, model, processor, settings, tmp_path / "run", open_image=open_picture, model_id=str(tmp_path / "base"))
    return tmp_path


def test_merged_folder_loads_plainly_and_computes_what_the_adapter_did(trained, pairs, open_picture):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    report = export_merged(
        trained / "base", trained / "run" / "adapter", trained / "merged", pair=pairs[0], open_image=open_picture
    )
    assert report.difference < 1e-4
    assert report.adapter_logp > report.base_logp + 0.1
    merged = AutoModelForImageTextToText.from_pretrained(trained / "merged")
    assert AutoProcessor.from_pretrained(trained / "merged").chat_template
    base = AutoModelForImageTextToText.from_pretrained(trained / "base")
    changed = [name for name, value in merged.state_dict().items() if not torch.equal(value, base.state_dict()[name])]
    assert changed
    assert all("language_model" in name for name in changed)


def test_a_made_up_question_serves_when_no_pair_is_given(trained):
    report = export_merged(trained / "base", trained / "run" / "adapter", trained / "merged")
    assert report.difference < 1e-4


def test_no_adapter_and_no_model(trained):
    with pytest.raises(DataError, match=r"no adapter_config\.json"):
        export_merged(trained / "base", trained, trained / "merged")
    with pytest.raises(ModelError, match="not a vision-language model"):
        export_merged(trained, trained / "run" / "adapter", trained / "merged")
    assert not (trained / "merged").exists()
