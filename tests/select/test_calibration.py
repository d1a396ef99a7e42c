from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from mia_augment.records import PreferencePair, ScoredSample
from mia_select import Calibrate, Selector, SelectSettings
from mia_select.selection.calibration import lowest_share
from mia_select.selection.funnel import Selection
from mia_select.settings import ADVISED

MakeScored = Callable[..., ScoredSample]
RED, BLUE = "The color is red.", "The color is blue."


def run(samples: list[ScoredSample], **settings: object) -> tuple[list[PreferencePair], Selection]:
    selector = Selector(SelectSettings.model_validate(settings))
    pairs = [r for r in selector.run(iter(samples)) if isinstance(r, PreferencePair)]
    return pairs, selector.report()


def about_thresholds(report: Selection) -> list[str]:
    """Warnings, less the one about one-sided answers: those of these samples are all alike."""
    return [warning for warning in report.warnings if not warning.startswith("rejected far more often than chosen")]


def low_when_wrong(make: MakeScored, *, shift: float, count: int = 200) -> list[ScoredSample]:
    """Sequences of two, half of them wrong, ratios around 0.5 that are lower by `shift` when wrong."""
    rng = np.random.default_rng(1)
    noise = rng.uniform(-0.1, 0.1, count)
    return [
        make(f"s{i}", ratio=0.5 + noise[i] - (shift if i % 2 else 0), response=BLUE if i % 2 else RED) for i in range(count)
    ]


@pytest.mark.parametrize(("share", "under"), [(0.25, 1), (0.5, 2), (0.75, 3), (1.0, 4), (0.55, 2)])
def test_a_share_is_cut_between_two_values(share: float, under: int) -> None:
    values = np.array([0.4, 0.1, 0.3, 0.2])
    cut = lowest_share(values, share)
    assert np.sum(values < cut) == np.sum(values <= cut) == under


def test_equal_values_stay_together() -> None:
    assert np.sum(np.array([0.1, 0.2, 0.2, 0.2, 0.9]) < lowest_share(np.array([0.1, 0.2, 0.2, 0.2, 0.9]), 0.6)) == 4
    assert np.sum(np.array([0.3, 0.3]) < lowest_share(np.array([0.3, 0.3]), 0.5)) == 2


def test_keep_takes_the_wanted_share_of_wrong_answers_in_each_bucket(make_scored: MakeScored) -> None:
    samples = low_when_wrong(make_scored, shift=0.0)
    samples += [make_scored(f"g{i}", format="grid", parts=4, ratio=0.001 * i) for i in range(40)]
    pairs, report = run(samples, calibrate={"keep": 0.25})
    assert sum(p.format == "sequence" for p in pairs) == 25
    assert {p.id for p in pairs if p.format == "grid"} == {f"g{i}" for i in range(10)}
    assert [(t.format, t.origin) for t in report.thresholds] == [("grid", "keep"), ("sequence", "keep")]
    assert report.thresholds[0].threshold == pytest.approx(0.0095)


def test_answers_that_are_none_do_not_move_a_threshold(make_scored: MakeScored) -> None:
    wrong = [make_scored(f"w{i}", ratio=0.4 + 0.01 * i) for i in range(20)]
    empty = [make_scored(f"e{i}", ratio=0.1, response=" ") for i in range(20)]
    for samples in (wrong, empty + wrong):
        _, report = run(samples, calibrate=Calibrate(keep=0.5, min_samples=20))
        (line,) = report.thresholds
        assert (line.origin, line.threshold) == ("keep", pytest.approx(0.495))
        assert line.wrong == 20
    _, report = run(wrong, calibrate=Calibrate(keep=0.5, min_samples=21))
    assert report.thresholds[0].origin == "table"


def test_shares_that_pass_count_the_threshold_itself_as_the_rule_does(make_scored: MakeScored) -> None:
    samples = [make_scored(f"s{i}", ratio=0.8 if i < 15 else 0.9) for i in range(20)]
    samples += [make_scored(f"p{i}", format="pic_in_pic", ratio=0.8 if i < 15 else 0.3) for i in range(20)]
    pairs, report = run(samples)
    assert {line.format: line.wrong_passed for line in report.thresholds} == {"sequence": 0.75, "pic_in_pic": 0.25}
    assert len(pairs) == 15 + 5


def test_auroc_cuts_where_wrong_and_right_part(make_scored: MakeScored) -> None:
    pairs, report = run(low_when_wrong(make_scored, shift=0.3), calibrate={"by": "auroc"})
    assert len(pairs) == 100
    (line,) = report.thresholds
    assert line.origin == "auroc"
    assert 0.3 < line.threshold < 0.4
    assert (line.right_passed, line.wrong_passed) == (0.0, 1.0)
    assert line.auroc is not None
    assert line.auroc.value == 1.0


def test_an_inert_table_is_reported(make_scored: MakeScored) -> None:
    pairs, report = run(low_when_wrong(make_scored, shift=0.3))
    assert len(pairs) == 100, "the paper's 0.8 keeps every wrong answer"
    (warning,) = about_thresholds(report)
    assert warning.startswith(
        "sequence of 2: the threshold 0.8 is inert, it lets through 100% of 100 wrong answers and 100% of 100 right answers"
    )
    assert "calibrate: auto" in warning


def test_auto_replaces_an_inert_threshold_by_the_best_cut(make_scored: MakeScored) -> None:
    pairs, report = run(low_when_wrong(make_scored, shift=0.12), calibrate="auto")
    (line,) = report.thresholds
    assert line.origin == "auroc"
    assert 0.38 < line.threshold < 0.5
    assert len(pairs) < 100
    assert any("was set from the data instead (auroc)" in warning for warning in report.warnings)


def test_auto_halves_and_warns_where_attention_tells_nothing(make_scored: MakeScored) -> None:
    pairs, report = run(low_when_wrong(make_scored, shift=0.0), calibrate="auto")
    assert [line.origin for line in report.thresholds] == ["keep"]
    assert len(pairs) == 50
    assert any("does not tell right from wrong" in warning for warning in report.warnings)


def test_auto_leaves_a_threshold_that_decides(make_scored: MakeScored) -> None:
    samples = [
        make_scored(f"s{i}", ratio=0.6 + 0.3 * (i % 4 >= 2) + 0.0001 * i, response=BLUE if i % 2 else RED) for i in range(200)
    ]
    pairs, report = run(samples, calibrate="auto")
    assert [(line.threshold, line.origin) for line in report.thresholds] == [(0.8, "table")]
    assert len(pairs) == 50
    assert about_thresholds(report) == []


def test_a_threshold_that_lets_nothing_through_is_inert_too(make_scored: MakeScored) -> None:
    samples = [make_scored(f"s{i}", ratio=0.9 + 0.001 * i) for i in range(40)]
    pairs, report = run(samples, calibrate="auto")
    assert len(pairs) == 20
    assert "0% of 40 wrong answers" in report.warnings[0]


def test_a_threshold_that_holds_back_right_answers_only_is_not_inert(make_scored: MakeScored) -> None:
    wrong = [make_scored(f"w{i}", ratio=0.5 + 0.001 * i) for i in range(50)]
    right = [make_scored(f"r{i}", ratio=0.7 + 0.004 * i, response=RED) for i in range(50)]
    assert about_thresholds(run(wrong + right)[1]) == []


def test_a_handful_of_right_answers_decides_nothing(make_scored: MakeScored) -> None:
    wrong = [make_scored(f"w{i}", ratio=0.5 + 0.001 * i) for i in range(50)]
    right = [make_scored(f"r{i}", ratio=0.9, response=RED) for i in range(5)]
    assert "is inert" in run(wrong + right)[1].warnings[0]


def test_companions_answers_do_not_count_as_the_models(make_scored: MakeScored) -> None:
    samples = [make_scored(f"s{i}", response=RED, confusions=[None, BLUE]) for i in range(7)]
    (line,) = run(samples, rejected="both")[1].thresholds
    assert (line.right, line.wrong) == (7, 0)


def test_buckets_with_few_samples_keep_the_table(make_scored: MakeScored) -> None:
    samples = [make_scored(f"s{i}", ratio=0.01 * i) for i in range(19)]
    few = [*samples, make_scored("s19", ratio=0.19)]
    _, report = run(few, calibrate={"keep": 0.5, "min_samples": 21})
    assert report.warnings[0].endswith("these are too few answers to set another")
    for calibrate in ({"keep": 0.5}, {"by": "auroc"}, "auto"):
        pairs, report = run(samples, calibrate=calibrate)
        assert [line.origin for line in report.thresholds] == ["table"]
        assert len(pairs) == 19
    assert len(run(samples, calibrate=Calibrate(keep=0.5, min_samples=5))[0]) in (9, 10)


def test_the_advised_settings_keep_what_the_papers_would_lose(make_scored: MakeScored) -> None:
    samples = [sample.model_copy(update={"perplexity": 1.05}) for sample in low_when_wrong(make_scored, shift=0.12)]
    assert run(samples)[0] == []
    pairs, report = run(samples, **ADVISED)
    assert len(pairs) > 50
    assert [line.origin for line in report.thresholds] == ["auroc"]


def test_yaml_off_means_no_calibration() -> None:
    assert SelectSettings.model_validate({"calibrate": False}).calibrate is None
