"""Which picture an answer speaks of: values worked by hand."""

from __future__ import annotations

import math

import pytest
from mia_augment.records import LogpAlone
from mia_augment.statistics import against_likeliest, likeliest_per_token, said_of_none_below, shares, spoken_of


def logps(*summed: float | None, tokens: int = 4, any_part: float | None = None) -> LogpAlone:
    return LogpAlone(summed=list(summed), per_token=[None if s is None else s / tokens for s in summed], per_token_any=any_part)


def test_pictures_with_the_same_answer_do_not_lessen_each_other() -> None:
    assert against_likeliest([-0.1, -0.1, -0.1, -9.0], 0) == pytest.approx(1.0)  # its share is 1/3
    assert against_likeliest([math.log(0.1), math.log(0.4), math.log(0.2)], 2) == pytest.approx(0.5)
    assert against_likeliest([-2000.0, -2000.0 - math.log(4)], 1) == pytest.approx(0.25)
    assert against_likeliest([-1.0, None], 0) is None
    assert against_likeliest([-1.0], 0) is None


def test_the_floor_lies_between_the_groups_but_never_above_what_own_answers_reach() -> None:
    own = [-0.1 - 0.001 * index for index in range(100)]  # from -0.1 to -0.199; all but one percent reach about -0.198
    assert said_of_none_below([-0.1] * 50 + [-1.9] * 5, own) == pytest.approx(-1.0)
    # all answers speak of a picture: the two groups are parts of one, and the floor is what own answers reach
    assert said_of_none_below([-0.1] * 50 + [-0.18] * 50, own) == pytest.approx(-0.19801)
    assert said_of_none_below([-0.1, -0.1], own) == pytest.approx(-0.19801)
    assert said_of_none_below([-0.1, -1.9], own[:19]) is None


def about(found: LogpAlone, floor: float | None, target: int = 0) -> int | str | None:
    return spoken_of(shares(found.summed) or [], target, found, floor)


def test_an_answer_speaks_of_the_likeliest_picture_of_several_or_of_none() -> None:
    assert about(logps(-8.0, -0.4, -6.0), -1.0) == 1
    assert about(logps(-8.0, -5.0, -6.0), None) == 1
    assert about(logps(-8.0, -4.0), -1.0) == 1  # -1.0 a token: at the floor
    assert about(logps(-8.0, -4.4), -1.0) == "neither"
    # as a whole unlikely under each, but each word likely under one: -0.2 on average
    assert about(logps(-8.0, -7.0, any_part=-0.2), -1.0) == "mixed"
    assert about(logps(-8.0, -7.0, any_part=-1.2), -1.0) == "neither"
    assert about(logps(-0.4), -1.0) is None
    assert about(logps(-0.4, None), -1.0) is None
    assert spoken_of([0.2, 0.8], 0, None, -1.0) == 1


def test_what_is_true_of_the_target_too_speaks_of_the_target() -> None:
    assert about(logps(-0.4, -0.2, -9.0), -1.0, target=0) == 0  # exp(-0.2) = 0.82 of the likeliest
    assert about(logps(-0.4, -0.2, -9.0), -1.0, target=2) == 1
    assert about(logps(-1.2, -0.2), -1.0, target=0) == 1  # exp(-1) = 0.37


def test_the_floor_needs_all_parts() -> None:
    assert likeliest_per_token(logps(-8.0, -4.0)) == -1.0
    assert likeliest_per_token(logps(-8.0, None)) is None
