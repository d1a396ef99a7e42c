"""The stage `evaluate`: the same held-out samples, asked before and after training, and what came of it.

How a model is asked is handed in, so that this needs no torch.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from mia_augment import FORMATS, DataError, LogpAlone, Sample, Skipped, check_unique
from mia_augment.contents import pictures_digest, seen_in_training, training_folders
from mia_augment.storage import (
    MANIFEST,
    Manifest,
    Progress,
    Stage,
    check_whole,
    content_hash,
    image_folders,
    process_rank,
    read_jsonl,
    read_manifest,
    read_record,
    relative_folders,
    write_json,
    write_jsonl,
)

from mia_select.evaluation.accuracy import Evaluation, Prediction, predict, summarize
from mia_select.evaluation.multiple_choice import alternatives
from mia_select.evaluation.speaking import answers_floor, speaks

SAMPLES = "samples.jsonl"
EVALUATION, PREDICTIONS, SKIPPED = "evaluation.json", "predictions.jsonl", "skipped.jsonl"
BASE_ANSWERS = ("base.jsonl", "base.key")
"""The base model's answers and what they depend on; another evaluation of the same samples may start from copies."""
STEERING = "delimiter_scale"
"""The setting by which the second model is used otherwise; the first one's answers do not depend on it."""
OWN_ANSWERS = "alone.jsonl"
"""The base model's answers about the targets alone, where rows have no ground truth."""


class Reply(Protocol):
    """What a model said to a sample."""

    @property
    def response(self) -> str: ...
    @property
    def perplexity(self) -> float | None: ...
    @property
    def skipped(self) -> str | None:
        """Why the sample could not be asked; None: it was."""


class Weigh(Protocol):
    """Measures how likely the base model holds given answers under each picture alone, and keeps that in a file."""

    def __call__(
        self, samples: Sequence[Sample], answers: Sequence[str], file: Path, key: str, progress: Progress
    ) -> Sequence[LogpAlone]: ...


class Ask(Protocol):
    """Asks a model samples, and keeps the replies in a file until `key` changes."""

    def __call__(
        self,
        samples: Sequence[Sample],
        file: Path,
        key: str,
        progress: Progress,
        *,
        trained: Path | None,
        alone: bool,
        steered: bool = False,
    ) -> Sequence[Reply]:
        """`trained`: ask what was trained there; None: the base model. `alone`: ask about the target's own picture alone.
        `steered`: as `AskedModels.steered` says."""


@dataclass(frozen=True)
class AskedModels:
    """The models to compare.

    Attributes:
        id: tells the base model from another.
        trained: gives the folder of what was trained (see `mia_dpo_train.trained_weights`); None: only the base model is asked.
    """

    id: str
    trained: Callable[[], Path | None]
    ask: Ask
    weigh: Weigh | None = None
    """None: it is not asked what answers speak of."""
    steered: bool = False
    """The second time, with or without training, the model is used otherwise, as `decoding` says."""


def evaluation_stage(folder_in: Path, out: Path, decoding: dict[str, Any], models: AskedModels) -> Stage:
    """Ask the model, and the trained one, every sample of a folder; makes `evaluation.json`, `predictions.jsonl` and
    `skipped.jsonl` (samples whose pictures or prompt cannot be used, and why).

    The base model's answers are kept apart: another adapter on the same samples asks only the adapter.

    Args:
        folder_in: with `samples.jsonl`, as `mia augment` writes it.
        decoding: settings that the answers depend on; with `choices: likelihood`, questions with options count as judged so.

    Raises (planning and making it):
        DataError: there are no samples, or not as many as their manifest counts, an id comes twice, or none could be asked.
        ModelError: the model or what was trained cannot be loaded.
    """

    def plan() -> Manifest:
        return _planned(folder_in, out, decoding, models)

    def make(planned: Manifest, progress: Progress) -> Manifest:
        return _evaluate(_Work(folder_in, out, models.ask, models.trained(), planned, models.weigh, models.steered), progress)

    return Stage("evaluate", out, plan, make, together=True)


@dataclass(frozen=True)
class _Work:
    """One evaluation; its folder is this process's."""

    folder_in: Path
    out: Path
    ask: Ask
    trained: Path | None
    planned: Manifest
    weigh: Weigh | None = None
    steered: bool = False

    def key(self, *, trained: bool = False, alone: bool = False, weighed: bool = False) -> str:
        """Hash of what the answers of the base or the trained model depend on; `alone`: answers about the targets alone."""
        work = self.planned.model_dump(include={"settings", "inputs"})
        if not trained:
            work["inputs"]["trained"] = ""
            work["settings"].pop(STEERING, None)
        of = {"alone": alone, **({"weighed": True} if weighed else {})}
        return hashlib.sha256(json.dumps({**work, **of}, sort_keys=True).encode()).hexdigest()[:16]


def _planned(folder_in: Path, out: Path, decoding: dict[str, Any], models: AskedModels) -> Manifest:
    made, trained = read_manifest(folder_in), models.trained()
    if made is None:
        raise DataError(f"{folder_in}: no {MANIFEST} there; expected the folder of a finished `mia augment`")
    origin = made.model_dump_json(include={"inputs", "image_folders"})
    return Manifest(
        stage="evaluate",
        version=version("mia-select"),
        settings=decoding,
        inputs={
            "model": models.id,
            "trained": content_hash(trained) if trained else "",
            SAMPLES: content_hash(folder_in / SAMPLES),
            "samples_made_from": hashlib.sha256(origin.encode()).hexdigest(),
            "pictures": pictures_digest(folder_in, SAMPLES, out),
        },
        image_folders=relative_folders(image_folders(folder_in), to=out),
    )


def _evaluate(work: _Work, progress: Progress) -> Manifest:
    folder_in, out = work.folder_in, work.out
    check_whole(folder_in)
    samples = everything = list(read_jsonl(folder_in / SAMPLES, Sample))
    if not samples:
        raise DataError(f"{folder_in}: expected at least one held-out sample, found none")
    check_unique((sample.id for sample in samples), str(folder_in / SAMPLES))
    samples, refused = _with_truths(work, samples)
    predictions, skipped = _predictions(work, samples, progress)
    skipped = [*refused, *skipped]
    agreement = (out / OWN_ANSWERS).is_file()
    if work.weigh is not None and predictions and (agreement or work.planned.settings.get("alone")):
        file = out / (OWN_ANSWERS if agreement else "own.jsonl")
        own = work.ask(everything, file, work.key(alone=True), lambda *_: None, trained=None, alone=True)
        predictions = _with_what_they_speak_of(work, work.weigh, samples, predictions, own)
    if process_rank() != 0:  # it has answered its share
        return work.planned
    if not predictions:
        first = skipped[0]
        raise DataError(f"{folder_in}: none of {len(skipped)} samples could be asked; the first, {first.id}: {first.reason}")
    (out / MANIFEST).unlink(missing_ok=True)  # it spoke of the files that are about to be replaced
    write_jsonl(out / SKIPPED, skipped)
    write_jsonl(out / PREDICTIONS, predictions)
    seen = _seen_in_training(folder_in, work.trained)
    write_json(out / EVALUATION, summarize(predictions, seen_in_training=seen, agreement=agreement).model_dump(mode="json"))
    pictures_digest(folder_in, SAMPLES, out, keep=True)
    buckets = Counter(f"{prediction.format}/{prediction.parts}" for prediction in predictions)
    counts = {
        "samples": len(predictions) + len(skipped),
        "skipped": len(skipped),
        **({"by_agreement": len(predictions)} if agreement else {}),
        **({"seen_in_training": seen} if seen else {}),
        **_by_likelihood(samples, work.planned.settings),
        **dict(sorted(buckets.items())),
    }
    return work.planned.model_copy(update={"counts": counts})


def _with_truths(work: _Work, samples: Sequence[Sample]) -> tuple[list[Sample], list[Skipped]]:
    """The samples as they are if all have a ground truth; else with the untrained model's own answer about the target alone.

    Some truths beside some own answers would mix accuracy with agreement, so then none of the truths counts.
    """
    file = work.out / OWN_ANSWERS
    if all(sample.answer.strip() for sample in samples):
        file.unlink(missing_ok=True)
        return list(samples), []
    about_several = [sample for sample in samples if FORMATS[sample.format].shared is not None]
    samples = [sample for sample in samples if FORMATS[sample.format].shared is None]
    said = work.ask(samples, file, work.key(alone=True), lambda *_: None, trained=None, alone=True)
    labelled = []
    refused = [
        Skipped(id=sample.id, reason="a question about several pictures has no own answer about one to compare with")
        for sample in about_several
    ]
    for sample, own in zip(samples, said, strict=True):
        if own.skipped is None and own.response.strip():
            labelled.append(sample.model_copy(update={"answer": own.response}))
        else:
            reason = own.skipped or "nothing was said"
            refused.append(Skipped(id=sample.id, reason=f"no ground truth, and no own answer about the target alone: {reason}"))
    return labelled, refused


def _with_what_they_speak_of(
    work: _Work, weigh: Weigh, samples: Sequence[Sample], predictions: Sequence[Prediction], own: Sequence[Reply]
) -> list[Prediction]:
    """The predictions with what their answers speak of. The judge is the base model, before and after: it must not move.

    Args:
        own: the base model's answers about the targets alone.
    """
    by_id = {sample.id: sample for sample in samples}
    several = [prediction for prediction in predictions if prediction.parts > 1 and FORMATS[prediction.format].asks_of_one]
    asked = [by_id[prediction.id] for prediction in several]

    def weighed(name: str, answers: Sequence[str], *, trained: bool) -> Sequence[LogpAlone]:
        return weigh(asked, answers, work.out / name, work.key(trained=trained, weighed=True), lambda *_: None)

    before = weighed("base_weighed.jsonl", [p.before for p in several], trained=False)
    paired = all(p.after is not None for p in several)
    after = weighed("trained_weighed.jsonl", [p.after or "" for p in several], trained=True) if paired else []
    floor = answers_floor([*before, *after], [-math.log(reply.perplexity) for reply in own if reply.perplexity is not None])
    found = {
        prediction.id: {
            "speaks_before": speaks(before[index], asked[index].target, floor),
            "speaks_after": speaks(after[index], asked[index].target, floor) if after else None,
        }
        for index, prediction in enumerate(several)
    }
    return [prediction.model_copy(update=found.get(prediction.id, {})) for prediction in predictions]


def _seen_in_training(folder_in: Path, trained: Path | None) -> int | None:
    """How many held-out samples show pictures that training saw; None where it is not known what it saw."""
    if trained is None:
        return None
    folder = next((place for place in (trained, trained.parent) if (place / MANIFEST).is_file()), None)
    training = training_folders(folder) if folder else []
    return len(seen_in_training(folder_in, training)) if training else None


def _by_likelihood(samples: Sequence[Sample], decoding: dict[str, Any]) -> dict[str, int]:
    """How many questions have options that are judged by their likelihood; nothing where none has."""
    count = sum(alternatives(sample.prompt, sample.answer) is not None for sample in samples)
    return {"by_likelihood": count} if count and decoding.get("choices") == "likelihood" else {}


def _predictions(work: _Work, samples: Sequence[Sample], progress: Progress) -> tuple[list[Prediction], list[Skipped]]:
    """What both models say to every sample, and whether it is right; and the samples that either could not be asked."""
    count, again = len(samples), work.trained is not None or work.steered
    total = count * (2 if again else 1)

    def replies(name: str, weights: Path | None, before: int, *, steered: bool) -> Sequence[Reply]:
        key = work.key(trained=weights is not None or steered)
        return work.ask(
            samples,
            work.out / name,
            key,
            lambda done, _: progress(before + done, total),
            trained=weights,
            alone=False,
            steered=steered,
        )

    base = replies(BASE_ANSWERS[0], None, 0, steered=False)
    own: Sequence[Reply | None] = [None] * count
    if again:
        own = replies("trained.jsonl", work.trained, count, steered=work.steered)
    predictions, skipped = [], []
    for sample, before, after in zip(samples, base, own, strict=True):
        reason = before.skipped or (after.skipped if after else None)
        if reason is None:
            predictions.append(predict(sample, before.response, after.response if after else None))
        else:
            skipped.append(Skipped(id=sample.id, reason=reason))
    return predictions, skipped


def read_evaluation(folder: Path) -> Evaluation:
    """The result of an evaluation.

    Raises:
        DataError: there is none.
    """
    path = folder / EVALUATION
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected the folder of a finished `mia evaluate`")
    return read_record(path, Evaluation, "run `mia evaluate` again")
