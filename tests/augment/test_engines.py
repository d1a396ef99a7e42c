"""Who composes: what is not installed is said at once."""

from __future__ import annotations

import sys

import pytest
from mia_augment import augment_dataset
from mia_augment.errors import ConfigError


def test_without_ray_the_extra_is_named(data, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'mia-augment\[ray\]'"):
        augment_dataset(data.source, data.root, tmp_path / "out", engine="ray")
