"""What a run costs, measured on one small batch in a temporary folder: composing, scoring and a training step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mia_augment import MiaError, PreferencePair, Sample, ScoredSample, Scores
from mia_augment.images import picture_opener
from mia_augment.storage import Progress, read_jsonl, run_stage

from mia_cli.config.schema import PipelineConfig
from mia_cli.loading.load import SharedModel
from mia_cli.pipeline import samples_stage

ROWS = 64
"""Rows composed at first; four times as many where these do not serve every format."""
PARTS = 3
"""Composing, scoring, training."""
STEPS = 3
"""Training steps: the second one is timed, since the first warms up and the last one writes a checkpoint."""


@dataclass
class ProbeCosts:
    """What a small batch took; None: not measured, `notes` say why."""

    samples_per_row: float | None = None
    compose_seconds: float | None = None
    """For a sample."""
    compose_bytes: float | None = None
    batch: int = 0
    score_seconds: float | None = None
    """For a sample, once the model is warm."""
    score_bytes: float | None = None
    score_memory: float | None = None
    """Peak, in bytes: of the GPU, or of the process."""
    kept: int = 0
    """Samples of the batch that became pairs."""
    train_seconds: float | None = None
    """For a pair: forward, backward, and its part of an optimizer step."""
    reference_seconds: float | None = None
    train_memory: float | None = None
    train_bytes: int | None = None
    """Adapter and checkpoints."""
    notes: list[str] = field(default_factory=list)


def probe_costs(
    config: PipelineConfig, shared: SharedModel, folder: Path, samples: Path | None, progress: Progress
) -> ProbeCosts:
    """Compose, score and train on as little as tells something.

    Args:
        folder: a temporary one.
        samples: the run's samples, where they are made.
        progress: told which of the three is done.

    Raises:
        MiaError: the rows cannot be composed.
    """
    found = ProbeCosts()
    place = samples or _composed(config, folder, found)
    progress(1, PARTS)
    batch = _spread(list(read_jsonl(place / "samples.jsonl", Sample)), config.score.batch_size)
    if not config.score.ask:
        found.notes.append("no model is asked when scoring; training was not measured")
        return found
    try:
        scored = _scored(config, shared, batch, place, found)
        progress(2, PARTS)
        _trained(config, shared, scored, place, folder / "train", found)
    except MiaError as error:
        found.notes.append(f"not measured any further: {error}")
    return found


def _composed(config: PipelineConfig, folder: Path, found: ProbeCosts) -> Path:
    rows, most = ROWS, config.data.limit
    while True:
        limit = rows if most is None else min(rows, most)
        part = config.model_copy(update={"data": config.data.model_copy(update={"limit": limit})})
        started = time.perf_counter()
        try:
            manifest = run_stage(samples_stage(part, folder / f"samples-{rows}")).manifest
            break
        except MiaError:
            if limit == most or rows > 64 * ROWS:
                raise
            rows *= 4
    place, made = folder / f"samples-{rows}", manifest.counts["samples"]
    found.samples_per_row = made / manifest.counts["rows"]
    found.compose_seconds = (time.perf_counter() - started) / made
    found.compose_bytes = size_of(place) / made
    return place


def _spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """So many samples from all over the file, so that formats come in their shares."""
    step = max(1, len(samples) // count)
    return list(samples[::step][:count])


def _scored(
    config: PipelineConfig, shared: SharedModel, batch: list[Sample], place: Path, found: ProbeCosts
) -> list[ScoredSample]:
    from mia_attention import score

    settings = config.score
    if settings.layer == "auto":
        found.notes.append("score.layer: auto first looks at all layers of some samples; measured with the middle one")
        settings = settings.model_copy(update={"layer": "middle"})
    if settings.answers is not None:
        found.notes.append("answers come from elsewhere; measured as if this model gave them")
        settings = settings.model_copy(update={"answers": None})
    model, processor = shared.get()
    open_image = picture_opener(place)
    list(score(batch[:2], model, processor, settings, open_image=open_image))  # warms up
    started = time.perf_counter()
    scored = list(score(batch, model, processor, settings, open_image=open_image))
    found.batch = len(scored)
    found.score_seconds = (time.perf_counter() - started) / len(scored)
    found.score_bytes = sum(len(each.model_dump_json()) for each in scored) / len(scored)
    found.score_memory = peak_memory()
    return scored


def _trained(
    config: PipelineConfig, shared: SharedModel, scored: list[ScoredSample], place: Path, out: Path, found: ProbeCosts
) -> None:
    from mia_dpo_train import train
    from mia_select import select

    pairs = [record for record in select(scored, config.select) if isinstance(record, PreferencePair)]
    found.kept = len({pair.id.rpartition("~")[0] or pair.id for pair in pairs})
    size = config.train.per_device_batch_size
    pairs = _enough(pairs, scored, STEPS * size)
    settings = config.train.model_copy(
        update={"accumulation": 1, "epochs": 1, "max_steps": STEPS, "held_out": 0.0, "trackers": [], "checkpoint_every": 10**6}
    )
    told: list[tuple[float, int, int | None]] = []
    model, processor = shared.take()
    train(
        pairs, model, processor, settings, out, open_image=picture_opener(place), model_id=shared.place,
        progress=lambda done, total: told.append((time.perf_counter(), done, total)),
    )  # fmt: skip
    times = [at for at, _, _ in told]
    found.train_seconds = (times[-2] - times[-3]) / size
    before = times[-3 - STEPS] if len(times) > 2 + STEPS else None
    found.reference_seconds = (times[-2 - STEPS] - before) / size if before else found.train_seconds / 3
    found.train_memory = peak_memory()
    found.train_bytes = _kept_bytes(out, config.train.keep_checkpoints)


def _enough(pairs: list[PreferencePair], scored: list[ScoredSample], count: int) -> list[PreferencePair]:
    """Pairs of the batch, and more made of its samples where these are too few: as long, whatever they say."""
    made = list(pairs)
    for number in range(count - len(pairs)):
        sample = scored[number % len(scored)]
        chosen = sample.answer or sample.response or "yes"
        rejected = sample.response if sample.response.strip() not in ("", chosen.strip()) else f"not {chosen}"
        made.append(
            PreferencePair(
                id=f"probe-{number}", format=sample.format, images=sample.images, prompt=sample.prompt, chosen=chosen,
                rejected=rejected, scores=Scores(), target=sample.target, regions=sample.regions,
            )
        )  # fmt: skip
    return made[:count]


def _kept_bytes(out: Path, checkpoints: int) -> int:
    one = size_of(out / "checkpoints")
    return size_of(out) + one * (checkpoints - 1)


def size_of(folder: Path) -> int:
    """Bytes of all files in and below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def peak_memory() -> float:
    """Most bytes at a time so far: allocated on the GPU, or of this process."""
    import resource

    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
