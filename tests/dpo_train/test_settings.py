from __future__ import annotations

import subprocess
import sys

import pytest
from mia_augment.errors import ConfigError
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


def test_every_tracker_gets_the_names_of_the_metrics_file(tmp_path):
    """`train/loss` is the `loss` of a line of part `train`; what is no number is left out."""
    from types import SimpleNamespace

    from mia_dpo_train.training.metrics_log import MetricsLog

    told: list[tuple[dict[str, float], int]] = []
    said = {"init_trackers": lambda *_, **__: None, "log": lambda values, step: told.append((values, step))}
    accelerator = SimpleNamespace(is_main_process=True, log_with=["trackio"], **said)
    log = MetricsLog(tmp_path / "metrics.jsonl", accelerator)
    log.start(0, TrainSettings(trackers=["trackio"]))
    log.add(3, {"loss": 0.5, "accuracy": 1.0, "grad_norm": None})
    log.add(3, {"loss": 0.6}, "held_out")
    assert told == [({"train/loss": 0.5, "train/accuracy": 1.0}, 3), ({"held_out/loss": 0.6}, 3)]


def test_a_tracker_that_is_not_installed_says_how_to_get_it():
    from mia_dpo_train import check_environment

    with pytest.raises(ConfigError, match="tracker trackio is not installed: pip install trackio"):
        check_environment(TrainSettings(trackers=["trackio"]))
