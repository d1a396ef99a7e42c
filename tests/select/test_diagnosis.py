"""Findings that follow from known answers and ratios."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import yaml
from colour_samples import sample
from mia_select.diagnosis import AnsweredSample, Diagnosis, ReadoutRatios, diagnose, find_readout
from mia_select.settings import SelectSettings, Thresholds
from sklearn.metrics import roc_auc_score


def diagnosed(answered: Sequence[AnsweredSample], readouts: Sequence[ReadoutRatios], layer: int | None = 1) -> Diagnosis:
    """With the paper's thresholds, and scoring set to a layer (None: it is yet to be chosen)."""
    configured = find_readout(readouts, layer, "generated", False)
    return diagnose(answered, readouts, Thresholds(), model="m", configured=configured)


def asked(right: int, wrong: int, *, parts: int = 3, said: str = "blue", alone: str = "red") -> list[AnsweredSample]:
    return [AnsweredSample(sample(number, parts), "red" if number < right else said, alone) for number in range(right + wrong)]


def readings(ratios: list[float | None]) -> list[ReadoutRatios]:
    return [ReadoutRatios("generated", 0, False, [0.5] * len(ratios)), ReadoutRatios("generated", 1, False, ratios)]


def by_name(found: Diagnosis, name: str) -> tuple[bool | None, str]:
    return next((finding.good, finding.text) for finding in found.findings if finding.name == name)


def test_a_telling_ratio_is_found_and_measured_within_each_number_of_images() -> None:
    rng = np.random.default_rng(0)
    two, three = asked(40, 40, parts=2), asked(40, 40, parts=3)
    ratios = [float(rng.normal(0.3 if i < 40 else 0.2, 0.08)) for i in range(80)]
    ratios += [float(rng.normal(0.9 if i < 40 else 0.8, 0.08)) for i in range(80)]
    found = diagnosed([*two, *three], readings([*ratios]))
    independent = [roc_auc_score([i >= 40 for i in range(80)], [-r for r in part]) for part in (ratios[:80], ratios[80:])]
    assert found.configured is not None
    assert found.configured.auroc == pytest.approx(np.mean(independent), abs=1e-12)  # groups of equal size
    assert [round(line.auroc.value, 12) for line in found.buckets if line.auroc] == [round(v, 12) for v in independent]
    assert found.readouts[0].layer == 1
    assert found.readouts[1].auroc == 0.5
    assert by_name(found, "attention")[0] is True


def test_a_ratio_that_tells_nothing_is_called_so() -> None:
    ratios = [0.2 + 0.001 * ((7 * i) % 40) for i in range(80)]  # the same values, right or wrong
    found = diagnosed(asked(40, 40), readings([*ratios]))
    good, text = by_name(found, "attention")
    assert not good
    assert "does not tell" in text
    assert found.advice["select"] == {"attention": False, "rejected": "both"}


def test_a_layer_that_is_yet_to_be_chosen_is_called_so() -> None:
    found = diagnosed(asked(40, 40), readings([0.9] * 40 + [0.1] * 40), layer=None)
    assert by_name(found, "attention") == (
        None,
        "the readout that `score` is set to was not measured: `auto`, which chooses a layer when scoring, or one that "
        "cannot be read from this model",
    )
    assert by_name(found, "thresholds") == (None, "what the thresholds decide is not known without the ratios")
    assert found.best is not None
    assert found.best.layer == 1


def test_an_inert_threshold_is_named_and_one_that_divides_is_not() -> None:
    low = diagnosed(asked(40, 40), readings([0.1] * 80))
    assert by_name(low, "thresholds")[0] is False
    assert [line.inert for line in low.buckets] == [True]
    assert (low.buckets[0].right_passed, low.buckets[0].wrong_passed) == (1.0, 1.0)
    divided = diagnosed(asked(40, 40), readings([0.9] * 40 + [0.1] * 40))
    assert by_name(divided, "thresholds")[0] is True
    assert (divided.buckets[0].right_passed, divided.buckets[0].wrong_passed) == (0.0, 1.0)


def test_thresholds_are_not_called_good_where_they_could_not_be_judged() -> None:
    none_right = diagnosed(asked(0, 31), readings([0.9] * 15 + [0.1] * 16))
    assert none_right.buckets[0].judged is False
    assert by_name(none_right, "thresholds") == (
        None,
        "not known in every format and number of images: that takes 20 right and 20 wrong answers",
    )
    divided = [0.9] * 40 + [0.1] * 40
    both = [*asked(40, 40, parts=2), *asked(0, 31, parts=3)]
    found = diagnosed(both, readings([*divided, *[0.9] * 15, *[0.1] * 16]))
    good, text = by_name(found, "thresholds")
    assert good is None
    assert "keep wrong answers rather than right ones in 1 of 2 (sequence of 2); not known in 1 of 2 (sequence of 3)" in text
    inert = diagnosed(both, readings([*divided, *[0.1] * 31]))
    assert by_name(inert, "thresholds")[0] is False


def test_what_was_not_measured_is_no_reason_to_turn_the_attention_rule_off() -> None:
    none_right = diagnosed(asked(0, 31), readings([0.9] * 15 + [0.1] * 16))
    assert none_right.configured is None
    assert "attention" not in none_right.advice.get("select", {})
    free = diagnosed(asked(0, 40, alone="a red thing, I think"), readings([0.1] * 40))
    assert free.advice == {"select": {"calibrate": "auto"}}  # what the FAQ says: the attention rule decides alone there
    free = diagnosed(asked(0, 40, alone="a red thing"), readings([0.1, 0.9] * 20))
    assert free.advice == {}


def test_room_and_confusion_are_counted() -> None:
    found = diagnosed(asked(30, 10), readings([0.5] * 40))
    assert by_name(found, "room") == (True, "100% right with the picture alone, 75% among several: 25 points to win back")
    assert by_name(found, "confusion")[1] == "10 of 10 wrong answers are right about another of the pictures"
    assert found.buckets[0].told_another == 10
    other = diagnosed(asked(30, 10, said="green"), readings([0.5] * 40))
    assert other.buckets[0].told_another == 0
    none = diagnosed(asked(60, 0), readings([0.5] * 60))
    assert by_name(none, "room")[0] is False


def test_few_samples_give_no_verdict_on_what_there_is_to_mend() -> None:
    """4 of 4 right alone and 3 of 4 among several: 25 points, with 42 as half of an interval."""
    few = diagnosed(asked(3, 1), readings([0.5] * 4))
    good, text = by_name(few, "room")
    assert good is None
    assert "not known from 4 samples (-17 to 67 points)" in text
    assert by_name(diagnosed(asked(4, 0), readings([0.5] * 4)), "room")[0] is None


def test_thresholds_that_keep_the_right_answers_are_not_called_good() -> None:
    found = diagnosed(asked(40, 40), readings([0.1] * 30 + [0.9] * 20 + [0.1] * 30))  # 75 % of both pass
    good, text = by_name(found, "thresholds")
    assert good is None
    assert "not surely wrong ones from right ones" in text
    reversed_ = diagnosed(asked(40, 40), readings([0.1] * 30 + [0.9] * 40 + [0.1] * 10))
    assert by_name(reversed_, "thresholds")[0] is None


def test_few_answers_give_no_verdict_on_attention_either_way() -> None:
    """Five right and five wrong ones: an interval that holds chance and much more than it."""
    found = diagnosed(asked(5, 5), readings([0.2, 0.3, 0.4, 0.5, 0.6, 0.1, 0.25, 0.35, 0.45, 0.55]))
    good, text = by_name(found, "attention")
    assert good is None
    assert "is not known" in text
    assert "attention" not in found.advice.get("select", {})


def test_a_favourite_wrong_answer_is_named() -> None:
    """Training on it as rejected would teach to avoid the word; answers about companions as rejected balance it."""
    found = diagnosed(asked(20, 20), readings([0.5] * 40))
    assert "'blue' (20 to 0)" in by_name(found, "one_sided")[1]
    assert found.advice["score"]["confusions"] is True
    assert found.advice["select"]["rejected"] == "both"
    few = diagnosed(asked(20, 19), readings([0.5] * 39))
    assert "one_sided" not in {finding.name for finding in few.findings}
    assert "score" not in few.advice
    assert "rejected" not in few.advice.get("select", {})


def test_free_answers_are_not_judged_by_equality() -> None:
    found = diagnosed(asked(0, 40, alone="a red thing, I think"), readings([0.5] * 40))
    assert found.findings[0].name == "matching"
    assert {finding.name for finding in found.findings} == {"matching", "thresholds"}


def test_unequal_answers_that_speak_of_the_asked_picture_put_equality_in_doubt() -> None:
    """30 right and 30 unequal; of the unequal, 7 (more than a fifth) or 6 are likeliest under the target alone."""

    def found(of_target: int, unequal: int = 30) -> Diagnosis:
        alone = [0.95] * 30 + [0.9] * of_target + [0.1] * (unequal - of_target)
        readout = ReadoutRatios("generated", "alone", False, list(alone))
        return diagnosed(asked(30, unequal), [*readings([0.5] * (30 + unequal)), readout])

    doubtful = found(7)
    assert by_name(doubtful, "matching")[0] is False
    assert by_name(doubtful, "matching")[1].startswith("7 of 30 answers that differ from the ground truth")
    assert doubtful.advice["select"]["correct"] == "likely"
    for sure in (found(6), found(19, unequal=19)):
        assert "matching" not in {finding.name for finding in sure.findings}
        assert sure.advice.get("select", {}).get("correct") is None


def test_the_best_readout_is_measured_on_samples_it_was_not_chosen_on() -> None:
    """Thirty readouts of pure noise: the best of them looks good on all samples, not on the other half."""
    rng = np.random.default_rng(1)
    noise = [ReadoutRatios("generated", layer, False, rng.random(80).tolist()) for layer in range(30)]
    found = diagnosed(asked(40, 40), noise)
    assert found.best is not None
    assert found.readouts[0].auroc > 0.6
    assert found.best.low < 0.5
    assert found.best.samples == 40


def test_the_share_under_each_picture_alone_is_advised_where_it_tells() -> None:
    entries = [*asked(30, 30), *asked(30, 30, parts=4)]
    told = ReadoutRatios("generated", "alone", False, [0.9 if entry.right else 0.1 for entry in entries])
    found = diagnosed(entries, [*readings([0.5] * 120), told])
    assert found.best is not None
    assert (found.best.name, found.best.auroc) == ("alone", 1.0)
    assert found.advice["score"]["layer"] == "alone"
    assert "rows" not in found.advice["score"]


def test_single_heads_are_a_kind_of_their_own_and_advised_as_scoring_takes_them() -> None:
    entries = [*asked(30, 30), *asked(30, 30, parts=4)]
    told = ReadoutRatios("generated", [(1, 3), (3, 0)], False, [0.9 if entry.right else 0.1 for entry in entries])
    found = diagnosed(entries, [*readings([0.5] * 120), told])
    assert [(score.name, score.auroc) for score in found.by_kind] == [
        ("heads 1.3, 3.0, generated rows", 1.0),
        ("layer 1, generated rows", 0.5),
    ]
    advised = {name: found.advice["score"][name] for name in ("layer", "heads", "rows")}
    assert advised == {"layer": "heads", "heads": [[1, 3], [3, 0]], "rows": "generated"}
    assert yaml.safe_load(yaml.safe_dump(found.advice)) == found.advice


def test_free_answers_are_judged_by_the_model_itself_where_that_can_be_measured() -> None:
    free = asked(0, 60, said="it looks blue to me", alone="it looks red to me")
    found = diagnosed(free, [*readings([0.5] * 60), ReadoutRatios("generated", "alone", False, [0.5] * 60)])
    assert found.advice["score"] == {"layer": "alone", "own_answer": True}
    select = SelectSettings.model_validate(found.advice["select"])
    assert (select.chosen, select.correct) == ("own", "likely")
    assert diagnosed(free, readings([0.5] * 60)).advice.get("score") is None
