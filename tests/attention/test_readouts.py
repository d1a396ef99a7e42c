"""The table of readouts: adding one touches its row, its function and its test."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import get_args

import pytest
from mia_attention import READOUTS, AnsweredBatch, ReadoutKind, ScoreSettings, attend, look_at, readout_kind, score
from mia_attention.readouts import ReadoutName
from mia_augment import Attention, ConfigError, ModelError


def test_every_name_has_a_row_and_its_sentence_in_the_documentation_of_layer() -> None:
    assert set(READOUTS) == set(get_args(ReadoutName))
    meaning = ScoreSettings.model_fields["layer"].description or ""
    assert all(f"`{name}`: {kind.reads}" in meaning for name, kind in READOUTS.items())


@pytest.mark.parametrize("name", sorted(READOUTS))
def test_a_row_stands_for_layers_or_says_when_and_how_it_is_read(name: ReadoutName) -> None:
    kind = READOUTS[name]
    ways = [kind.reader is not None, kind.reader is None and kind.way is not None, kind.measure is not None]
    assert sum(ways) == (kind.resolve is None)
    assert bool(kind.when) == (kind.resolve is None)


def test_an_unknown_readout_is_told_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"one of middle, rollout, gradient, .*got 'glimpse'"):
        readout_kind("glimpse")


def test_the_table_needs_no_torch() -> None:
    code = "import sys, mia_attention; mia_attention.READOUTS, mia_attention.ScoreSettings(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def _measured(batch: AnsweredBatch) -> list[Attention]:
    """The number of each answer's tokens, as a readout that looks at no positions."""
    return [
        Attention(layer="measured", rows=batch.settings.rows, region_mass=[], image_mass=[], ratio=1 / len(answer))
        for _, answer in zip(batch.samples, batch.answers, strict=True)
    ]


def test_a_row_that_measures_finished_answers_serves_score_and_attend(
    tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(READOUTS, "measured", ReadoutKind(reads="its length", when="after answering", measure=_measured))  # type: ignore[misc]
    build, samples = tiny.build("llava"), [tiny.sequence("s", ["a.png", "b.png"], 1), tiny.grid("g")]
    settings = ScoreSettings(max_new_tokens=4, batch_size=2).model_copy(update={"layer": "measured"})
    scored = list(score(samples, build.model, build.processor, settings, open_image=tiny.open_image))
    assert [found.attention.ratio for found in scored] == [1 / found.response_tokens for found in scored]
    given = [[5, 6], [5, 6, 7, 8]]
    attended = attend(samples, given, build.model, build.processor, settings, open_image=tiny.open_image)
    assert [found.ratio for found in attended] == [1 / 2, 1 / 4]
    with pytest.raises(ModelError, match="measured: has no attention over positions"):
        look_at(samples[0], build.model, build.processor, settings, open_image=tiny.open_image)


@pytest.mark.parametrize("name", ["rollout", "gradient"])
def test_a_model_that_cannot_be_read_so_is_refused_before_it_answers(
    tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, name: ReadoutName
) -> None:
    build = tiny.build("llava")
    for module in ("rollouts", "gradients"):
        monkeypatch.setattr(f"mia_attention.capture.{module}.check_readable", _refuse)
    monkeypatch.setattr(build.model, "generate", None)
    with pytest.raises(ModelError, match="cannot be read"):
        next(score([tiny.grid("g")], build.model, build.processor, ScoreSettings(layer=name), open_image=tiny.open_image))


def _refuse(*_: object, **__: object) -> None:
    raise ModelError("cannot be read")
