"""Kinds of multi-image hallucination, from masses and texts made by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from mia_attention import analyze
from mia_augment.errors import ConfigError
from mia_augment.records import Attention, LogpAlone, Sample, ScoredSample


def scored(sample: Sample, masses: list[float], tokens: list[float], response: str = "a dog", **more: Any) -> ScoredSample:
    attention = Attention(
        layer=more.pop("layer", 2),
        rows="generated",
        region_mass=masses,
        image_mass=[],
        region_tokens=tokens,
        ratio=more.pop("ratio", 0.5),
        reason=more.pop("reason", None),
    )
    base = {name: getattr(sample, name) for name in Sample.model_fields}
    return ScoredSample(
        **{**base, **more}, response=response, response_tokens=3, mean_logp=-0.1, perplexity=1.1, attention=attention
    )


def three(tiny: SimpleNamespace, name: str = "s") -> Sample:
    sample: Sample = tiny.sequence(name, ["a.png", "b.png", "c.png"], 1)
    return sample


def test_kind_follows_where_attention_per_token_peaks(tiny: SimpleNamespace) -> None:
    report = analyze(
        [
            scored(three(tiny, "on target"), [0.1, 0.7, 0.1], [10, 10, 10]),
            scored(three(tiny, "on another"), [0.7, 0.1, 0.1], [10, 10, 10]),
            scored(three(tiny, "everywhere"), [0.30, 0.31, 0.29], [10, 10, 10]),
            scored(three(tiny, "large picture"), [0.8, 0.8, 0.1], [80, 10, 10]),  # per token 0.01, 0.08, 0.01
            scored(three(tiny, "one token"), [], [], ratio=None, reason="no generated row"),
        ]
    )
    kinds = ["focused", "sequence_confusion", "element_interference", "focused", None]
    assert [analysis.kind for analysis in report.analyses] == kinds
    assert report.analyses[3].shares == pytest.approx([0.1, 0.8, 0.1])
    assert report.analyses[4].reason == "no generated row"
    expected = -(0.8 * math.log(0.8) + 0.2 * math.log(0.1)) / math.log(3)
    assert report.analyses[3].evenness == pytest.approx(expected)


def test_outer_picture_counts_without_the_inner_one(tiny: SimpleNamespace) -> None:
    # the outer box holds the inner: 0.5 - 0.4 over 64 - 32 tokens against 0.4 over 32
    analysis = analyze([scored(tiny.pic_in_pic("p"), [0.5, 0.4], [64, 32])]).analyses[0]
    assert analysis.shares == pytest.approx([0.1 / 0.5, 0.4 / 0.5])
    assert analysis.kind == "focused"


def test_a_wrong_answer_of_another_part_is_an_echo(tiny: SimpleNamespace) -> None:
    sample = three(tiny)
    source = sample.source.model_copy(update={"answers": ["A dog.", "a cat", None]})
    by_row = scored(sample.model_copy(update={"source": source}), [0.3] * 3, [1] * 3, "the dog")
    alone = scored(sample, [0.3] * 3, [1] * 3, "the bird", confusions=["a dog", None, "Bird"])
    right = scored(sample, [0.3] * 3, [1] * 3, "The cat.", confusions=["a cat", None, None])
    none = scored(sample, [0.3] * 3, [1] * 3, "a fish", confusions=["a dog", None, "a bird"])
    analyses = analyze([by_row, alone, right, none]).analyses
    assert [analysis.echoes for analysis in analyses] == [0, 2, None, None]
    assert [analysis.correct for analysis in analyses] == [False, False, True, False]


def test_groups_add_up_by_format_parts_target_and_layer(tiny: SimpleNamespace) -> None:
    report = analyze(
        [
            scored(three(tiny, "1"), [0.1, 0.7, 0.1], [1] * 3, "a cat", ratio=0.8),
            scored(three(tiny, "2"), [0.7, 0.1, 0.1], [1] * 3, ratio=0.1),
            scored(tiny.grid("3"), [0.3, 0.3], [1] * 2, ratio=None, layer=[1, 2]),
        ]
    )
    group = report.group("parts", "sequence/3")
    assert group is not None
    assert (group.count, group.correct, group.focused, group.sequence_confusion, group.mean_ratio) == (
        2,
        1,
        1,
        1,
        pytest.approx(0.45),
    )
    assert [g.key for g in report.groups if g.by == "target"] == ["sequence/3/Image2", "grid/2/Image2"]
    assert [g.key for g in report.groups if g.by == "layer"] == ["2", "1+2"]
    grid = report.group("format", "grid")
    assert grid is not None
    assert (grid.element_interference, grid.mean_ratio) == (1, None)


def test_scatter_out_of_range_is_refused() -> None:
    with pytest.raises(ConfigError, match="scatter"):
        analyze([], scatter=0)


def test_likelihoods_name_the_picture_that_a_free_answer_speaks_of(tiny: SimpleNamespace) -> None:
    def alone(name: str, *per_token: float, any_part: float | None = None) -> ScoredSample:
        """Of target 1, two tokens long."""
        weights = [math.exp(2 * logp) for logp in per_token]
        logps = LogpAlone(summed=[2 * logp for logp in per_token], per_token=list(per_token), per_token_any=any_part)
        one = scored(three(tiny, name), [weight / sum(weights) for weight in weights], [], ratio=0.5, layer="alone")
        attention = one.attention.model_copy(update={"logp_alone": logps})
        return one.model_copy(update={"attention": attention, "own_mean_logp": -0.1})

    told = [alone(str(number), -3.0, -0.1, -3.0) for number in range(20)]
    other, both = alone("other", -0.1, -3.0, -3.0), alone("both", -0.1, -0.2, -0.1)  # true of all three
    mixed, none = alone("mixed", -1.4, -1.5, -1.4, any_part=-0.05), alone("none", -1.4, -1.5, -1.4, any_part=-1.3)
    report = analyze([*told, other, both, mixed, none])
    found = {analysis.id: (analysis.about, analysis.kind) for analysis in report.analyses}
    assert found["0"] == (1, "focused")
    assert found["other"] == (0, "sequence_confusion")
    assert found["both"] == (1, "focused")
    assert found["mixed"] == ("mixed", "element_interference")
    assert found["none"] == ("neither", "neither")
    group = report.group("format", "sequence")
    assert group is not None
    kinds = (group.focused, group.sequence_confusion, group.element_interference, group.neither, group.unmeasured)
    assert kinds == (21, 1, 1, 1, 0)
    assert sum(kinds) == group.count
