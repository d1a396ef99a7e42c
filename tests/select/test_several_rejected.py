"""Several rejected answers to one prompt as one pair, and as plain pairs for other trainers."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from mia_augment.records import Dropped, PreferencePair, RejectedAnswer, ScoredSample
from mia_augment.storage.files import read_jsonl, write_jsonl
from mia_select import EXPORTED, Selector, SelectSettings, select
from mia_select.export import export_pairs, trl_rows
from mia_select.importing import import_pairs
from PIL import Image

MakeScored = Callable[..., ScoredSample]
BLUE, GREEN, GREY, PINK = (f"The color is {name}." for name in ("blue", "green", "grey", "pink"))


@pytest.fixture
def four(make_scored: MakeScored) -> ScoredSample:
    """A wrong answer and three companions' answers."""
    sample = make_scored(parts=4, response=BLUE, confusions=[None, GREEN, GREY, PINK])
    return sample.model_copy(update={"response_ids": [7, 2]})


def both(per_prompt: int, **changes: object) -> SelectSettings:
    settings = {"rejected": "both", "confusions_per_sample": 3, "rejected_per_prompt": per_prompt, **changes}
    return SelectSettings.model_validate(settings)


def test_answers_to_one_prompt_become_one_pair(four: ScoredSample) -> None:
    selector = Selector(both(4))
    records = list(selector.run([four]))
    (pair,) = [record for record in records if isinstance(record, PreferencePair)]
    assert (pair.id, pair.rejected, pair.rejected_ids) == ("a", BLUE, [7, 2])
    assert {answer.text for answer in pair.more_rejected} == {GREEN, GREY, PINK}
    assert [answer.ids for answer in pair.more_rejected] == [None] * 3
    assert [(record.rule, record.value) for record in records if isinstance(record, Dropped)] == [("joined", "a")] * 3
    report = selector.report()
    assert (report.candidates, report.pairs) == (4, 1)
    assert next(rule for rule in report.rules if rule.rule == "joined").dropped == 3


@pytest.mark.parametrize(("per_prompt", "sizes"), [(1, [1, 1, 1, 1]), (2, [2, 2]), (3, [3, 1]), (9, [4])])
def test_answers_beyond_start_another_pair(four: ScoredSample, per_prompt: int, sizes: list[int]) -> None:
    pairs = [record for record in select([four], both(per_prompt)) if isinstance(record, PreferencePair)]
    assert [len(pair.rejected_answers) for pair in pairs] == sizes
    assert len({pair.id for pair in pairs}) == len(sizes)
    texts = [answer.text for pair in pairs for answer in pair.rejected_answers]
    assert sorted(texts) == sorted([BLUE, GREEN, GREY, PINK])


def test_an_answer_that_a_rule_drops_joins_nothing(four: ScoredSample) -> None:
    sample = four.model_copy(update={"response": "The color is red.", "confusions": [None, GREEN, "<image>", PINK]})
    records = list(select([sample], both(4)))
    (pair,) = [record for record in records if isinstance(record, PreferencePair)]
    assert {answer.text for answer in pair.rejected_answers} == {GREEN, PINK}
    rules = sorted(record.rule for record in records if isinstance(record, Dropped))
    assert rules == ["correct", "degenerate", "joined"]


@pytest.mark.parametrize(("limit", "sizes"), [(1, [2]), (2, [2, 2])])
def test_a_picture_counts_once_for_a_pair(four: ScoredSample, limit: int, sizes: list[int]) -> None:
    pairs = [record for record in select([four], both(2, per_image=limit)) if isinstance(record, PreferencePair)]
    assert [len(pair.rejected_answers) for pair in pairs] == sizes


def test_a_pair_without_more_is_written_as_before(four: ScoredSample) -> None:
    (pair,) = [record for record in select([four], SelectSettings()) if isinstance(record, PreferencePair)]
    assert not {"more_rejected", "rejected_images"} & json.loads(pair.model_dump_json()).keys()
    assert PreferencePair.model_validate_json(pair.model_dump_json()) == pair
    several = pair.model_copy(update={"more_rejected": [RejectedAnswer(text=GREEN, ids=[3])]})
    assert PreferencePair.model_validate_json(several.model_dump_json()) == several


@pytest.mark.parametrize("fmt", EXPORTED)
def test_exports_write_plain_pairs_and_count_them(
    four: ScoredSample, tmp_path: Path, fmt: str, caplog: pytest.LogCaptureFixture
) -> None:
    pairs = [record for record in select([four], both(4)) if isinstance(record, PreferencePair)]
    write_jsonl(tmp_path / "pairs" / "pairs.jsonl", pairs)
    for name in pairs[0].images:
        (tmp_path / "pairs" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(tmp_path / "pairs" / name)
    with caplog.at_level(logging.WARNING):
        file = export_pairs(tmp_path / "pairs", fmt, tmp_path / "out")
    assert "1 pairs are written as 4 plain ones" in caplog.text
    read = [record for record in import_pairs(file, fmt) if isinstance(record, PreferencePair)]
    assert [pair.id for pair in read] == ["a", "a#2", "a#3", "a#4"]
    assert [pair.rejected for pair in read] == [answer.text for answer in pairs[0].rejected_answers]
    assert all(pair.chosen == pairs[0].chosen and not pair.more_rejected for pair in read)
    assert len(list(trl_rows(tmp_path / "pairs"))) == 4
    assert list(read_jsonl(tmp_path / "pairs" / "pairs.jsonl", PreferencePair)) == pairs
