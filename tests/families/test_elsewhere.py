"""Models whose pictures are no tokens of the prompt train, are measured without attention, and say why it is not read."""

from __future__ import annotations

import pytest
from family_builds import build
from family_columns import check_score, check_training, single
from mia_attention.models.decoder import decoder_layers
from mia_augment import ModelError


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("mllama", "it reads images by cross-attention"),
        ("git", "no token of the prompt stands for a picture"),
        ("florence2", "it is an encoder and a decoder"),
    ],
)
def test_pictures_elsewhere_are_learned_from_and_measured_by_likelihood(name: str, why: str) -> None:
    made = build(name)
    assert check_training(made, several=not single(name))[0].startswith(("plain", "kv"))
    assert check_score(made, several=not single(name)) == "alone"
    with pytest.raises(ModelError, match=rf"{why}.*layer alone"):
        decoder_layers(made.model)
