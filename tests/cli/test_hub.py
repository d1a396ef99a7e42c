"""A model id that is no folder: what happens without a network. No test here sends a request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import transformers
from huggingface_hub.errors import HfHubHTTPError
from mia_attention.models.hub import NotReachable, only_stored
from mia_augment.errors import ModelError
from mia_cli.loading.load import load


def answering(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> None:
    def model_info(*_: object, **__: object) -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: False)


def test_a_hub_out_of_reach_is_said_before_anything_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, ConnectionError("name or service not known"))
    monkeypatch.setattr(transformers.AutoModelForImageTextToText, "from_pretrained", lambda *_, **__: pytest.fail("tried"))
    with pytest.raises(ModelError, match=r"nobody/nothing: not stored .* cannot be reached \(name or service not known\)"):
        load("nobody/nothing")


def test_a_stored_model_is_loaded_without_asking_for_each_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answering(monkeypatch, ConnectionError("name or service not known"))
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: str(tmp_path / "config.json"))
    seen: dict[str, Any] = {}

    def from_pretrained(_: str, **options: Any) -> None:
        seen.update(options)
        raise OSError("enough")

    monkeypatch.setattr(transformers.AutoModelForImageTextToText, "from_pretrained", from_pretrained)
    with pytest.raises(ModelError, match="enough"):
        load("owner/stored")
    assert seen["local_files_only"] is True
    assert "taking the files stored" in caplog.text


def test_a_hub_that_answers_is_asked_for_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, None)
    assert only_stored("owner/model") is False
    refused = HfHubHTTPError.__new__(HfHubHTTPError)
    answering(monkeypatch, refused)
    assert only_stored("owner/private") is False
    answering(monkeypatch, ConnectionError("asked"))
    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: True)
    with pytest.raises(NotReachable, match="not stored on this machine, and HF_HUB_OFFLINE forbids"):
        only_stored("owner/model")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: "/some/config.json")
    assert only_stored("owner/model") is True
