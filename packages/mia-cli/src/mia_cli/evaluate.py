"""`mia evaluate`: the same held-out samples, asked before and after training."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mia_attention import Asking, HeldOutAnswer, Options, answer_all, target_alone
from mia_augment import DataError, ModelError, Sample, Skipped, check_unique
from mia_augment.contents import pictures_digest, seen_in_training, training_folders
from mia_augment.images import picture_opener
from mia_augment.storage import (
    MANIFEST,
    Manifest,
    Progress,
    check_whole,
    content_hash,
    image_folders,
    only_writer,
    read_json,
    read_jsonl,
    read_manifest,
    read_record,
    relative_folders,
    what_is_missing,
    write_json,
    write_jsonl,
    write_manifest,
)
from mia_select.evaluation import Evaluation, Prediction, alternatives, most_likely, predict, summarize

from mia_cli import __version__
from mia_cli.config.schema import EvaluateSettings
from mia_cli.loading.load import SharedModel, load
from mia_cli.runner import Key, digest, made_from

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


def evaluation_key(samples: Path, shared: SharedModel, trained: Path | None, out: Path, settings: EvaluateSettings) -> Key:
    """What an evaluation in the folder `out` depends on."""
    return {
        "samples": {**made_from(samples, SAMPLES), "contents": pictures_digest(samples, SAMPLES, out)},
        "model": shared.id,
        "trained": content_hash(trained) if trained else None,
        "settings": settings.model_dump(mode="json", include={"batch_size", "max_new_tokens", "choices"}),
    }


def evaluate_samples(
    folder_in: Path, shared: SharedModel, trained: Path | None, out: Path, settings: EvaluateSettings, *, progress: Progress
) -> Manifest:
    """Ask the model, and the trained one, every sample of a folder; writes `evaluation.json`, `predictions.jsonl`,
    `skipped.jsonl` (samples whose pictures or prompt cannot be used, and why) and a manifest.

    The base model's answers are kept apart: another adapter on the same samples asks only the adapter.

    Args:
        folder_in: with `samples.jsonl`, as `mia augment` writes it.
        shared: the base model, loaded once for both when an adapter was trained.
        trained: see `trained_weights`; None: only the base model is asked.

    Raises:
        ConfigError: another process is writing into `out`.
        DataError: there are no samples, or not as many as their manifest counts, an id comes twice, or none could be asked.
        ModelError: the model or what was trained cannot be loaded.
    """
    key = evaluation_key(folder_in, shared, trained, out, settings)
    planned = Manifest(
        stage="evaluate",
        version=__version__,
        settings=key["settings"],
        inputs={"model": shared.id, "trained": key["trained"] or "", **key["samples"]},
        image_folders=relative_folders(image_folders(folder_in), to=out),
    )
    if (done := _finished(out, planned)) is not None:
        return done
    check_whole(folder_in)
    with only_writer(out):
        return _finished(out, planned) or _evaluate(folder_in, shared, trained, out, settings, key, planned, progress)


def _finished(out: Path, planned: Manifest) -> Manifest | None:
    """The manifest of a folder that holds this very evaluation, with all of its files."""
    done = read_manifest(out)
    return done if done is not None and done.same_work(planned) and what_is_missing(out) is None else None


def _evaluate(
    folder_in: Path,
    shared: SharedModel,
    trained: Path | None,
    out: Path,
    settings: EvaluateSettings,
    key: Key,
    planned: Manifest,
    progress: Progress,
) -> Manifest:
    """The work itself; the folder is this process's."""
    started = time.monotonic()
    samples = list(read_jsonl(folder_in / SAMPLES, Sample))
    if not samples:
        raise DataError(f"{folder_in}: expected at least one held-out sample, found none")
    check_unique((sample.id for sample in samples), str(folder_in / SAMPLES))
    samples, refused = _with_truths(samples, folder_in, shared, out, settings, key)
    predictions, skipped = _predictions(samples, folder_in, shared, trained, out, settings, key, progress)
    skipped = [*refused, *skipped]
    if not predictions:
        first = skipped[0]
        raise DataError(f"{folder_in}: none of {len(skipped)} samples could be asked; the first, {first.id}: {first.reason}")
    (out / MANIFEST).unlink(missing_ok=True)  # it spoke of the files that are about to be replaced
    write_jsonl(out / SKIPPED, skipped)
    write_jsonl(out / PREDICTIONS, predictions)
    seen, agreement = _seen_in_training(folder_in, trained), (out / OWN_ANSWERS).is_file()
    write_json(out / EVALUATION, summarize(predictions, seen_in_training=seen, agreement=agreement).model_dump(mode="json"))
    buckets = Counter(f"{prediction.format}/{prediction.parts}" for prediction in predictions)
    counts = {
        "samples": len(predictions) + len(skipped),
        "skipped": len(skipped),
        **({"by_agreement": len(predictions)} if agreement else {}),
        **({"seen_in_training": seen} if seen else {}),
        **_by_likelihood(samples, settings),
        **dict(sorted(buckets.items())),
    }
    manifest = planned.model_copy(update={"counts": counts, "seconds": round(time.monotonic() - started, 3)})
    pictures_digest(folder_in, SAMPLES, out, keep=True)
    write_manifest(out, manifest)
    return manifest


def _with_truths(
    samples: Sequence[Sample], folder_in: Path, shared: SharedModel, out: Path, settings: EvaluateSettings, key: Key
) -> tuple[list[Sample], list[Skipped]]:
    """The samples as they are if all have a ground truth; else with the untrained model's own answer about the target alone.

    Some truths beside some own answers would mix accuracy with agreement, so then none of the truths counts.
    """
    if all(sample.answer.strip() for sample in samples):
        (out / OWN_ANSWERS).unlink(missing_ok=True)
        return list(samples), []
    asked = [target_alone(sample) for sample in samples]
    said = _ask(
        asked, shared.get, out / OWN_ANSWERS, {**key, "trained": None, "alone": True}, settings, folder_in, lambda _: None
    )
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


def _predictions(
    samples: Sequence[Sample],
    folder_in: Path,
    shared: SharedModel,
    trained: Path | None,
    out: Path,
    settings: EvaluateSettings,
    key: Key,
    progress: Progress,
) -> tuple[list[Prediction], list[Skipped]]:
    """What both models say to every sample, and whether it is right; and the samples that either could not be asked."""
    count = len(samples)
    total = count * (2 if trained else 1)
    base_key = {**key, "trained": None}
    before = _ask(samples, shared.get, out / BASE_ANSWERS[0], base_key, settings, folder_in, lambda n: progress(n, total))
    after: Sequence[HeldOutAnswer | None] = [None] * count
    if trained is not None:
        load_it = _trained(shared, trained)
        after = _ask(samples, load_it, out / "trained.jsonl", key, settings, folder_in, lambda n: progress(count + n, total))
    predictions, skipped = [], []
    for sample, base, own in zip(samples, before, after, strict=True):
        reason = base.skipped or (own.skipped if own else None)
        if reason is None:
            predictions.append(predict(sample, base.response, own.response if own else None))
        else:
            skipped.append(Skipped(id=sample.id, reason=reason))
    return predictions, skipped


def read_evaluation(folder: Path) -> Evaluation:
    """The result of `evaluate_samples`.

    Raises:
        DataError: there is none.
    """
    path = folder / EVALUATION
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected the folder of a finished `mia evaluate`")
    return read_record(path, Evaluation, "run `mia evaluate` again")


def _ask(
    samples: Sequence[Sample],
    load_model: Callable[[], tuple[Any, Any]],
    path: Path,
    key: Key,
    settings: EvaluateSettings,
    folder_in: Path,
    progress: Callable[[int], None],
) -> list[HeldOutAnswer]:
    asking = Asking(
        picture_opener(folder_in),
        settings.batch_size,
        settings.max_new_tokens,
        _options if settings.choices == "likelihood" else lambda _: None,
    )
    return answer_all(samples, load_model, path, digest(key), asking, progress=lambda done, _: progress(done))


def _options(sample: Sample) -> Options | None:
    """The options of a multiple-choice question; the likeliest is the answer."""
    found = alternatives(sample.prompt, sample.answer)
    if found is None:
        return None
    return Options(
        found.texts, lambda all: most_likely([each.logp for each in all], [each.tokens for each in all], by=found.by)
    )


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
