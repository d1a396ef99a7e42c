"""Two runs' answers to the same held-out questions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mia_augment import DataError, Sample
from mia_augment.contents import picture_content
from mia_augment.storage import MANIFEST, image_folders, read_jsonl, read_manifest, resolve_image
from mia_select.evaluation import PREDICTIONS, Evaluation, Prediction, read_evaluation, summarize

from mia_cli.layout import Folders

_SAMPLES = "samples.jsonl"


@dataclass(frozen=True)
class TwoRuns:
    """What two runs answer to the questions that they have in common.

    Attributes:
        evaluation: `before` is the first run's last word, `after` the second's.
        answers: the questions, as in `evaluation`.
        prompts: id -> prompt, where the samples are still there.
        own: the runs' own evaluations, of all their questions.
        other: ids that both have, but with another prompt, answer or picture.
        lone: questions of the first and of the second that the other does not have.
    """

    evaluation: Evaluation
    answers: list[Prediction]
    prompts: Mapping[str, str]
    own: tuple[Evaluation, Evaluation]
    other: int
    lone: tuple[int, int]


def same_questions(first: Path, second: Path) -> TwoRuns:
    """Pair the answers of two run directories by their questions.

    A question is the same where id, format, truth, prompt and the contents of all its pictures are.

    Raises:
        DataError: a run has no evaluation, or there is no question in common.
    """
    folders = Folders(first), Folders(second)
    own = read_evaluation(folders[0].evaluated), read_evaluation(folders[1].evaluated)
    one, two = ({p.id: p for p in read_jsonl(each.evaluated / PREDICTIONS, Prediction)} for each in folders)
    shared = [name for name in one if name in two]
    same = _same_samples(folders[0], folders[1], shared)
    pairs = [_paired(one[name], two[name]) for name in shared if same[name] and _asked(one[name]) == _asked(two[name])]
    if not pairs:
        raise DataError(
            f"{first} and {second}: no held-out question in common ({len(one)} and {len(two)} questions, {len(shared)} of the "
            "same id, but with another prompt, answer or picture); compare runs that were evaluated on the same samples, for "
            "instance of one pipeline.yaml with another `run_dir`, or with the same `evaluate.source`"
        )
    seen = [found.seen_in_training for found in own if found.seen_in_training]
    evaluation = summarize(pairs, seen_in_training=max(seen, default=None), agreement=any(found.agreement for found in own))
    return TwoRuns(
        evaluation=evaluation,
        answers=pairs,
        prompts={name: sample.prompt for name, sample in _samples(folders[0]).items()},
        own=own,
        other=len(shared) - len(pairs),
        lone=(len(one) - len(shared), len(two) - len(shared)),
    )


def _asked(prediction: Prediction) -> tuple[object, ...]:
    return prediction.format, prediction.parts, prediction.answer


def _paired(first: Prediction, second: Prediction) -> Prediction:
    """The last word of each: of the trained model, or of the only one."""

    def last(found: Prediction) -> tuple[str, bool]:
        if found.after is None or found.correct_after is None:
            return found.before, found.correct_before
        return found.after, found.correct_after

    (before, was_right), (after, is_right) = last(first), last(second)
    said = {"before": before, "after": after, "correct_before": was_right, "correct_after": is_right}
    return first.model_copy(update={**said, "speaks_before": None, "speaks_after": None})


def _same_samples(first: Folders, second: Folders, names: list[str]) -> dict[str, bool]:
    """By id, whether both runs asked the same about the same pictures.

    Raises:
        DataError: the samples of one are gone, and their hashes do not say that they were the same.
    """
    made = read_manifest(first.evaluated), read_manifest(second.evaluated)
    if None not in made:
        inputs = [{key: each.inputs.get(key) for key in (_SAMPLES, "pictures")} for each in made if each is not None]
        if inputs[0] == inputs[1] and None not in inputs[0].values():
            return dict.fromkeys(names, True)
    one, two = _samples(first), _samples(second)
    for folders, found in ((first, one), (second, two)):
        if not found:
            raise DataError(
                f"{folders.held_out / _SAMPLES}: no such file; expected the held-out samples, which tell whether both were "
                f"asked the same ({MANIFEST} in {folders.evaluated} has another hash than the other run's)"
            )
    places = image_folders(first.held_out), image_folders(second.held_out)

    def same(name: str) -> bool:
        a, b = one.get(name), two.get(name)
        return a is not None and b is not None and _looks_of(a, places[0]) == _looks_of(b, places[1])

    return {name: same(name) for name in names}


def _samples(folders: Folders) -> dict[str, Sample]:
    file = folders.held_out / _SAMPLES
    return {sample.id: sample for sample in read_jsonl(file, Sample)} if file.is_file() else {}


def _looks_of(sample: Sample, places: list[Path]) -> tuple[object, ...]:
    """What is asked, and what is to be seen; a picture that has gone is like no other."""
    try:
        return sample.prompt, sample.target, [picture_content(resolve_image(name, places)) for name in sample.images]
    except DataError:
        return (object(),)
