"""Pairs as people have them: repeated ids, answers that teach nothing, pictures and questions that a processor refuses."""

from __future__ import annotations

import json
import logging

import pytest
from mia_augment.errors import DataError
from mia_augment.records import PreferencePair
from mia_augment.storage.files import read_manifest, write_jsonl
from mia_dpo_train import LoraSettings, TrainSettings, train, train_pairs
from mia_dpo_train.data.encode import PairEncoder
from mia_dpo_train.data.pair_set import Measured, PairSet
from PIL import Image

SETTINGS = TrainSettings(
    lora=LoraSettings(r=4, alpha=8),
    epochs=2,
    per_device_batch_size=2,
    accumulation=2,
    learning_rate=1e-2,
    gradient_checkpointing=False,
    checkpoint_every=1,
    trackers=[],
)


@pytest.fixture
def run(build, open_picture):
    def run(out, pairs, held_out=(), family="llava", open_image=open_picture, **changes):
        model, processor = build(family)
        settings = TrainSettings.model_validate({**SETTINGS.model_dump(), **changes})
        return train(
            pairs, model, processor, settings, out, open_image=open_image, model_id="tiny", held_out=held_out
        )  # fmt: skip

    return run


def weights(result):
    return {path.name: path.read_bytes() for path in result.folder.iterdir()}


def called(pairs, *names):
    return [pair.model_copy(update={"id": name}) for pair, name in zip(pairs, names, strict=True)]


def with_repeated_ids(pairs):
    return called(pairs, *(f"row-{number // 4}" for number in range(len(pairs))))


@pytest.mark.parametrize("changes", [{}, {"image_cache_mb": 0}, {"reference": "online"}])
def test_repeated_ids_train_every_pair_as_unique_ones_do(run, pairs, tmp_path, changes, caplog):
    expected = run(tmp_path / "unique", pairs, **changes)
    with caplog.at_level(logging.WARNING):
        found = run(tmp_path / "repeated", with_repeated_ids(pairs), **changes)
    assert weights(found) == weights(expected)
    assert (found.renamed, expected.renamed) == (6, 0)
    assert "6 pairs repeat the id of another" in caplog.text
    if "reference" not in changes:
        stored = [json.loads((tmp_path / name / "reference.json").read_text())["logps"] for name in ("unique", "repeated")]
        assert stored[0] == stored[1]
        assert len(stored[0]) == 9


def test_what_is_kept_in_memory_is_found_by_place(build, open_picture, pairs):
    _, processor = build("llava")
    same = PairSet(called(pairs[:3], "a", "a", "a"), PairEncoder(processor, open_picture), cache_bytes=10**8)
    first = [same[index].digest for index in range(3)]
    assert len(set(first)) == 3
    assert [same[index].digest for index in range(3)] == first
    same.keep([2, 0], [Measured(1, 1, "") for _ in range(2)])
    assert [same[index].digest for index in range(2)] == [first[2], first[0]]


def test_an_id_may_stand_on_both_sides_of_the_division(run, pairs, tmp_path):
    expected = run(tmp_path / "unique", pairs[:5], pairs[5:])
    found = run(tmp_path / "repeated", called(pairs[:5], *"abcde"), called(pairs[5:], *"abcd"))
    assert weights(found) == weights(expected)
    assert found.held_out_metrics == expected.held_out_metrics
    assert found.renamed == 4


def test_interrupted_with_repeated_ids_it_ends_with_the_same_bytes(run, pairs, tmp_path, monkeypatch):
    from mia_dpo_train.logps.reference import ReferenceSource
    from mia_dpo_train.training import loop

    expected = run(tmp_path / "whole", pairs)
    compute, step, done = ReferenceSource.compute, loop.optimizer_step, []

    def dying(original, *arguments):
        result = original(*arguments)
        done.append(arguments)
        if len(done) in (2, 6):  # in the second batch of the reference, then after the others, a step
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(ReferenceSource, "compute", lambda *arguments: dying(compute, *arguments))
    monkeypatch.setattr(loop, "optimizer_step", lambda *arguments: dying(step, *arguments))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "killed", with_repeated_ids(pairs))
    assert weights(run(tmp_path / "killed", with_repeated_ids(pairs))) == weights(expected)


def test_the_very_same_pair_twice_is_trained_twice(run, pairs, tmp_path):
    twice = run(tmp_path, [*pairs, *pairs])
    assert (twice.pairs, twice.renamed, twice.skipped) == (18, 9, [])


BAD = {
    "equal": ({"chosen": "red .", "rejected": " red . "}, "same answers"),
    "equal tokens": ({"chosen": "zebra .", "rejected": "giraffe ."}, "same answers: chosen and rejected are the same 3 tokens"),
    "nothing chosen": ({"chosen": " "}, "empty answer: expected text as the chosen answer"),
    "nothing rejected": ({"rejected": ""}, "empty answer: expected text as the rejected answer"),
    "an end within": ({"chosen": "red . </s> blue ."}, "end token: the chosen answer holds '</s>'"),
    "an end alone": ({"rejected": " </s>"}, "empty answer: expected text as the rejected answer"),
    "equal but for an end": ({"chosen": "red .", "rejected": "red .</s>"}, "same answers"),
    "no number": ({"scores": {"ratio": float("nan")}}, "score: expected a finite number or null as ratio"),
}


def bad_pairs(make_pair):
    return [
        PreferencePair.model_validate({**make_pair(n + 20, 2).model_dump(), "id": name, **changes})
        for n, (name, (changes, _)) in enumerate(BAD.items())
    ]


def test_pairs_that_teach_nothing_are_left_out_with_their_reason(run, pairs, make_pair, tmp_path):
    expected = run(tmp_path / "sound", pairs)
    found = run(tmp_path / "mixed", [*bad_pairs(make_pair), *pairs])
    told = {skipped.id: skipped.reason for skipped in found.skipped}
    assert told.keys() == BAD.keys()
    assert [name for name, (_, reason) in BAD.items() if not told[name].startswith(reason)] == []
    assert found.pairs == 9
    assert weights(found) == weights(expected)
    listed = [json.loads(line) for line in (tmp_path / "mixed" / "skipped.jsonl").read_text().splitlines()]
    assert {row["id"]: row["reason"] for row in listed} == told


def test_an_end_token_that_an_answer_brings_is_not_trained_twice(run, pairs, tmp_path):
    expected = run(tmp_path / "plain", pairs)
    ended = [pair.model_copy(update={"chosen": pair.chosen + "</s>", "rejected": pair.rejected + " </s>\n"}) for pair in pairs]
    found = run(tmp_path / "ended", [*ended[:5], *pairs[5:]])
    assert weights(found) == weights(expected)
    assert (found.trimmed, expected.trimmed) == (5, 0)


def test_with_bad_pairs_alone_the_first_reason_is_told(run, make_pair, tmp_path):
    with pytest.raises(DataError, match=r"no pair left to train on, of 8; .*same answers: chosen and rejected are both"):
        run(tmp_path, bad_pairs(make_pair))


def test_without_a_sound_held_out_pair_training_goes_on(run, pairs, make_pair, tmp_path):
    found = run(tmp_path, pairs, bad_pairs(make_pair))
    assert (found.pairs, found.held_out, len(found.skipped)) == (9, 0, 8)
    assert found.held_out_metrics is None


def test_the_stage_counts_what_it_left_out_and_renamed(build, pairs, make_pair, open_picture, pairs_folder, tmp_path):
    odd = bad_pairs(make_pair)[:-1]  # JSON has no number for the last
    for name in {name for pair in odd for name in pair.images}:
        open_picture(name).save(pairs_folder / name)
    write_jsonl(pairs_folder / "pairs.jsonl", [*with_repeated_ids(pairs), *odd])
    train_pairs(pairs_folder, *build("llava"), tmp_path / "out", SETTINGS, model_id="tiny")
    counts = read_manifest(tmp_path / "out").counts
    assert {name: counts[name] for name in ("pairs", "skipped", "renamed")} == {"pairs": 9, "skipped": 7, "renamed": 6}


def test_pictures_and_questions_that_the_processor_refuses_cost_their_pairs(run, pairs, make_pair, open_picture, tmp_path):
    """Qwen2-VL's refuses aspect ratios above 200; its image token in a question is one picture too many."""
    odd = {
        "thin": {"images": ["thin.png"]},
        "broken": {"images": ["broken.png"]},
        "lost": {"images": ["lost.png"]},
        "token": {"prompt": "<image>\nwhat is <|image_pad|> ?"},
    }
    bad = [make_pair(20, 1).model_copy(update={"id": name, **changes}) for name, changes in odd.items()]

    def open_image(name):
        if name == "lost.png":
            raise DataError("image 'lost.png': no such file")
        if name == "broken.png":
            raise OSError("image file is truncated")
        return Image.new("RGB", (1, 600)) if name == "thin.png" else open_picture(name)

    changes = {"family": "qwen2_vl", "epochs": 1, "open_image": open_image}
    expected = run(tmp_path / "sound", pairs[:4], pairs[4:6], **changes)
    found = run(tmp_path / "mixed", [*bad[:2], *pairs[:4]], [*pairs[4:6], *bad[2:]], **changes)
    told = {skipped.id: skipped.reason for skipped in found.skipped}
    assert list(told) == list(odd)
    assert "the model's processor refuses it: absolute aspect ratio must be smaller than 200" in told["thin"]
    assert "image file is truncated" in told["broken"]
    assert told["lost"] == "pair lost: image 'lost.png': no such file"
    assert "the question holds '<|image_pad|>', which stands for a picture" in told["token"]
    assert weights(found) == weights(expected)
    assert found.held_out_metrics == expected.held_out_metrics


def test_errors_that_are_no_pairs_fault_end_the_training(run, pairs, tmp_path):
    def open_image(name):
        raise TypeError("open_image() takes no argument")

    with pytest.raises(TypeError):
        run(tmp_path, pairs, open_image=open_image)
