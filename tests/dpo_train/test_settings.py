from __future__ import annotations

import subprocess
import sys

import pytest
from mia_dpo_train.settings import TrainSettings
from pydantic import ValidationError


def test_settings_need_no_torch():
    heavy = "{'torch', 'transformers', 'peft'}"
    code = f"import sys, mia_dpo_train.settings, mia_dpo_train.stage; assert not {heavy} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_defaults_are_the_papers():
    settings = TrainSettings()
    assert (settings.beta, settings.dpo_alpha, settings.gamma) == (0.1, 1.0, 0.1)
    assert (settings.lora.r, settings.lora.alpha, settings.learning_rate) == (128, 256, 5e-5)
    assert (settings.schedule, settings.warmup, settings.weight_decay, settings.epochs) == ("linear", 0.1, 0.0, 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dpo_alpha": 0, "gamma": 0}, "nothing would be learnt"),
        ({"loss": "ipo", "label_smoothing": 0.1}, "sigmoid, robust only"),
        ({"route": "kv"}, "gradient_checkpointing drops"),
        ({"route": "packed", "attn_implementation": "flash_attention_2"}, "custom mask"),
        ({"tuning": "full", "lora": {"r": 8}}, "tuning is full"),
        ({"learning_rat": 1e-4}, "Extra inputs"),
        ({"beta": 0}, "greater than 0"),
    ],
)
def test_contradictions_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        TrainSettings(**values)
