"""`mia evaluate`: the same held-out samples, asked before and after training."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mia_augment import DataError, ModelError, Sample, Skipped, check_unique
from mia_augment.contents import pictures_digest, seen_in_training, training_folders
from mia_augment.images import picture_opener
from mia_augment.storage import (
    MANIFEST,
    Manifest,
    Progress,
    Stage,
    check_whole,
    content_hash,
    image_folders,
    read_json,
    read_jsonl,
    read_manifest,
    read_record,
    relative_folders,
    write_json,
    write_jsonl,
)
from mia_select.evaluation import Evaluation, Prediction, alternatives, most_likely, predict, summarize

from mia_cli import __version__
from mia_cli.config.schema import EvaluateSettings
from mia_cli.loading.load import SharedModel, load

if TYPE_CHECKING:
    from mia_attention import Asking, HeldOutAnswer, Options

SAMPLES = "samples.jsonl"
EVALUATION, PREDICTIONS, SKIPPED = "evaluation.json", "predictions.jsonl", "skipped.jsonl"
BASE_ANSWERS = ("base.jsonl", "base.key")
"""The base model's answers and what they depend on; another evaluation of the same samples may start from copies."""
OWN_ANSWERS = "alone.jsonl"
"""The base model's answers about the targets alone, where rows have no ground truth."""


def trained_weights(folder: Path) -> Path:
    """What a training folder holds: its adapter, or after full fine-tuning the model. An adapter's folder stands for itself.

    Raises:
        DataError: neither is there, or its configuration is damaged.
    """
    places = ((folder, "adapter_config.json"), (folder / "adapter", "adapter_config.json"), (folder / "model", "config.json"))
    for candidate, mark in places:
        if (candidate / mark).is_file():
            if not isinstance(read_json(candidate / mark, "train again"), dict):
                raise DataError(f"{candidate / mark}: expected an object with keys and values; train again")
            return candidate
    raise DataError(f"{folder}: no adapter there; expected the folder that `mia train` wrote (with adapter/ or model/)")


def evaluate_stage(
    folder_in: Path, out: Path, settings: EvaluateSettings, shared: SharedModel, trained: Callable[[], Path | None]
) -> Stage:
    """Ask the model, and the trained one, every sample of a folder; makes `evaluation.json`, `predictions.jsonl` and
    `skipped.jsonl` (samples whose pictures or prompt cannot be used, and why).

    The base model's answers are kept apart: another adapter on the same samples asks only the adapter.

    Args:
        folder_in: with `samples.jsonl`, as `mia augment` writes it.
        shared: the base model, loaded once for both when an adapter was trained.
        trained: gives what was trained (see `trained_weights`); None: only the base model is asked.

    Raises (planning and making it):
        DataError: there are no samples, or not as many as their manifest counts, an id comes twice, or none could be asked.
        ModelError: the model or what was trained cannot be loaded.
    """

    def plan() -> Manifest:
        return _planned(folder_in, out, settings, shared.id, trained())

    def make(planned: Manifest, progress: Progress) -> Manifest:
        return _evaluate(_Work(folder_in, out, settings, shared, trained(), planned), progress)

    return Stage("evaluate", out, plan, make)


@dataclass(frozen=True)
class _Work:
    """One evaluation; its folder is this process's."""

    folder_in: Path
    out: Path
    settings: EvaluateSettings
    shared: SharedModel
    trained: Path | None
    planned: Manifest

    def key(self, *, trained: bool = False, alone: bool = False) -> str:
        """Hash of what the answers of the base or the trained model depend on; `alone`: answers about the targets alone."""
        work = self.planned.model_dump(include={"settings", "inputs"})
        if not trained:
            work["inputs"]["trained"] = ""
        return hashlib.sha256(json.dumps({**work, "alone": alone}, sort_keys=True).encode()).hexdigest()[:16]


def _planned(folder_in: Path, out: Path, settings: EvaluateSettings, model_id: str, trained: Path | None) -> Manifest:
    made = read_manifest(folder_in)
    if made is None:
        raise DataError(f"{folder_in}: no {MANIFEST} there; expected the folder of a finished `mia augment`")
    origin = made.model_dump_json(include={"inputs", "image_folders"})
    return Manifest(
        stage="evaluate",
        version=__version__,
        settings=settings.model_dump(mode="json", include={"batch_size", "max_new_tokens", "choices"}),
        inputs={
            "model": model_id,
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
    samples = list(read_jsonl(folder_in / SAMPLES, Sample))
    if not samples:
        raise DataError(f"{folder_in}: expected at least one held-out sample, found none")
    check_unique((sample.id for sample in samples), str(folder_in / SAMPLES))
    samples, refused = _with_truths(work, samples)
    predictions, skipped = _predictions(work, samples, progress)
    skipped = [*refused, *skipped]
    if not predictions:
        first = skipped[0]
        raise DataError(f"{folder_in}: none of {len(skipped)} samples could be asked; the first, {first.id}: {first.reason}")
    (out / MANIFEST).unlink(missing_ok=True)  # it spoke of the files that are about to be replaced
    write_jsonl(out / SKIPPED, skipped)
    write_jsonl(out / PREDICTIONS, predictions)
    seen, agreement = _seen_in_training(folder_in, work.trained), (out / OWN_ANSWERS).is_file()
    write_json(out / EVALUATION, summarize(predictions, seen_in_training=seen, agreement=agreement).model_dump(mode="json"))
    pictures_digest(folder_in, SAMPLES, out, keep=True)
    buckets = Counter(f"{prediction.format}/{prediction.parts}" for prediction in predictions)
    counts = {
        "samples": len(predictions) + len(skipped),
        "skipped": len(skipped),
        **({"by_agreement": len(predictions)} if agreement else {}),
        **({"seen_in_training": seen} if seen else {}),
        **_by_likelihood(samples, work.settings),
        **dict(sorted(buckets.items())),
    }
    return work.planned.model_copy(update={"counts": counts})


def _with_truths(work: _Work, samples: Sequence[Sample]) -> tuple[list[Sample], list[Skipped]]:
    """The samples as they are if all have a ground truth; else with the untrained model's own answer about the target alone.

    Some truths beside some own answers would mix accuracy with agreement, so then none of the truths counts.
    """
    if all(sample.answer.strip() for sample in samples):
        (work.out / OWN_ANSWERS).unlink(missing_ok=True)
        return list(samples), []
    from mia_attention import answer_all, target_alone

    asked = [target_alone(sample) for sample in samples]
    asking, key = _asking(work.folder_in, work.settings), work.key(alone=True)
    said = answer_all(asked, work.shared.get, work.out / OWN_ANSWERS, key, asking, progress=lambda *_: None)
    labelled, refused = [], []
    for sample, own in zip(samples, said, strict=True):
        if own.skipped is None and own.response.strip():
            labelled.append(sample.model_copy(update={"answer": own.response}))
        else:
            reason = own.skipped or "nothing was said"
            refused.append(Skipped(id=sample.id, reason=f"no ground truth, and no own answer about the target alone: {reason}"))
    return labelled, refused


def _seen_in_training(folder_in: Path, trained: Path | None) -> int | None:
    """How many held-out samples show pictures that training saw; None where it is not known what it saw."""
    if trained is None:
        return None
    folder = next((place for place in (trained, trained.parent) if (place / MANIFEST).is_file()), None)
    training = training_folders(folder) if folder else []
    return len(seen_in_training(folder_in, training)) if training else None


def _by_likelihood(samples: Sequence[Sample], settings: EvaluateSettings) -> dict[str, int]:
    """How many questions have options that are judged by their likelihood; nothing where none has."""
    count = sum(alternatives(sample.prompt, sample.answer) is not None for sample in samples)
    return {"by_likelihood": count} if count and settings.choices == "likelihood" else {}


def _predictions(work: _Work, samples: Sequence[Sample], progress: Progress) -> tuple[list[Prediction], list[Skipped]]:
    """What both models say to every sample, and whether it is right; and the samples that either could not be asked."""
    from mia_attention import answer_all  # needs torch, which a plan does not

    count, shared, trained = len(samples), work.shared, work.trained
    total = count * (2 if trained else 1)
    asking = _asking(work.folder_in, work.settings)

    def told(before: int) -> Progress:
        return lambda done, _: progress(before + done, total)

    base = answer_all(samples, shared.get, work.out / BASE_ANSWERS[0], work.key(), asking, progress=told(0))
    own: Sequence[HeldOutAnswer | None] = [None] * count
    if trained is not None:
        key, load_it = work.key(trained=True), _trained(shared, trained)
        own = answer_all(samples, load_it, work.out / "trained.jsonl", key, asking, progress=told(count))
    predictions, skipped = [], []
    for sample, before, after in zip(samples, base, own, strict=True):
        reason = before.skipped or (after.skipped if after else None)
        if reason is None:
            predictions.append(predict(sample, before.response, after.response if after else None))
        else:
            skipped.append(Skipped(id=sample.id, reason=reason))
    return predictions, skipped


def _asking(folder_in: Path, settings: EvaluateSettings) -> Asking:
    """How the samples of a folder are asked."""
    from mia_attention import Asking

    options = _options if settings.choices == "likelihood" else lambda _: None
    return Asking(picture_opener(folder_in), settings.batch_size, settings.max_new_tokens, options)


def _options(sample: Sample) -> Options | None:
    """The options of a multiple-choice question; the likeliest is the answer."""
    from mia_attention import Options

    found = alternatives(sample.prompt, sample.answer)
    if found is None:
        return None
    return Options(
        found.texts, lambda all: most_likely([each.logp for each in all], [each.tokens for each in all], by=found.by)
    )


def read_evaluation(folder: Path) -> Evaluation:
    """The result of `evaluate_samples`.

    Raises:
        DataError: there is none.
    """
    path = folder / EVALUATION
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected the folder of a finished `mia evaluate`")
    return read_record(path, Evaluation, "run `mia evaluate` again")


def _trained(shared: SharedModel, trained: Path) -> Callable[[], tuple[Any, Any]]:
    """Loads the trained model: the base with its adapter, or the fully fine-tuned one."""

    def get() -> tuple[Any, Any]:
        if not (trained / "adapter_config.json").is_file():
            settings = shared.settings
            return load(str(trained), settings.dtype, settings.device)
        from peft import PeftModel

        model, processor = shared.get()
        try:
            adapted = PeftModel.from_pretrained(model, str(trained)).eval()
        except MemoryError:
            raise
        except Exception as error:  # peft and safetensors raise anything at damaged files
            said = f"{type(error).__name__}: {error}"
            raise ModelError(f"{trained}: this adapter does not fit the model {shared.settings.name}: {said}") from error
        shared.release()  # the adapter's layers are in the model now
        return adapted, processor

    return get
