"""`mia diagnose`: what to know about a model before aligning it.

Is there anything to mend? Does low attention on the target tell wrong answers from right ones, and read from where? Do the
thresholds decide anything? Asked of some hundred samples, before a day is spent on all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mia_augment.errors import DataError, ModelError
from mia_augment.files import image_folders, read_jsonl, resolve_image, write_json
from mia_augment.pictures import open_picture
from mia_augment.prompts import single_header
from mia_augment.records import IMAGE, Format, Record, Rows, Sample
from mia_augment.text import same_answer
from mia_select.calibration import ENOUGH, Ratios, is_inert
from mia_select.candidates import stable_key
from mia_select.metrics import Auroc, auroc_interval
from mia_select.thresholds import looks_elsewhere, threshold_for
from PIL import Image

from mia_cli.config import PipelineConfig
from mia_cli.console import Display, Report
from mia_cli.layout import Folders
from mia_cli.models import SharedModel
from mia_cli.pipeline import augment_stage, check_runnable
from mia_cli.runner import Runner, exclusive

logger = logging.getLogger(__name__)

RESULT = "diagnosis.json"
ROWS: tuple[Rows, ...] = ("generated", "predicting", "question")
ROOM = 0.05
"""Fewer points than this lost against the picture alone, and there is little to mend."""
TELLS = 0.6
"""An area under the curve below this is little use for choosing answers."""
MATCHES = 0.2
"""With fewer answers than this equal to the ground truth, equality does not tell right from wrong."""

Bucket = tuple[Format, int]
Layer = int | Literal["rollout", "gradient"]


class ReadoutScore(Record):
    """How well one way of reading attention tells wrong answers from right ones, within each format and number of images."""

    rows: Rows
    layer: Layer
    value_weighted: bool
    auroc: float
    low: float
    high: float
    samples: int

    @property
    def name(self) -> str:
        """``layer 3, rows question, value-weighted``."""
        layer = f"layer {self.layer}" if isinstance(self.layer, int) else self.layer
        return f"{layer}, {self.rows} rows{', value-weighted' if self.value_weighted else ''}"


class BucketFindings(Record):
    """One format and number of images."""

    format: Format
    parts: int
    n: int
    right: int
    right_alone: int
    """Of the same questions, asked about the target's own picture alone."""
    told_another: int | None
    """Wrong answers that equal another picture's answer; None: the data do not say."""
    mean_ratio_right: float | None
    mean_ratio_wrong: float | None
    auroc: Auroc | None
    """Of the configured readout."""
    threshold: float | None
    right_passed: float | None
    """Share of the right answers that the threshold would take for wrong-looking."""
    wrong_passed: float | None
    inert: bool
    """The threshold treats right and wrong answers alike."""


class Finding(Record):
    """One sentence for the user."""

    name: Literal["matching", "room", "confusion", "attention", "readout", "thresholds"]
    good: bool | None
    """None: cannot be told."""
    text: str


class Diagnosis(Record):
    """All that `mia diagnose` found."""

    model: str
    samples: int
    buckets: list[BucketFindings]
    configured: ReadoutScore | None
    """The readout of `score`; None: right and wrong answers never meet in a bucket."""
    best: ReadoutScore | None
    """The readout that is best on one half of the samples, measured on the other half."""
    readouts: list[ReadoutScore]
    """All that were tried, on all samples, best first. The first one is flattered by being chosen: see `best`."""
    findings: list[Finding]
    advice: dict[str, dict[str, Any]]
    """Settings to try in the pipeline.yaml."""


@dataclass(frozen=True)
class Reading:
    """One readout's ratio of every sample."""

    rows: Rows
    layer: Layer
    value_weighted: bool
    ratios: list[float | None]


@dataclass(frozen=True)
class Asked:
    """A sample with the model's answers to it."""

    sample: Sample
    response: str
    alone: str

    @property
    def bucket(self) -> Bucket:
        return self.sample.format, self.sample.parts

    @property
    def right(self) -> bool:
        return same_answer(self.response, self.sample.answer)


def run_diagnosis(
    config: PipelineConfig, display: Display, *, samples: int, thorough: bool = False, trust_remote_code: bool = False
) -> Diagnosis:
    """Compose the run's samples if they are not there, ask the model about `samples` of them, read its attention in every way.

    Args:
        samples: how many, taken evenly from all formats and numbers of images.
        thorough: value-weighted attention too: two thirds more time.

    Raises:
        MiaError: the samples cannot be composed, or the model not be read.
    """
    check_runnable(config)
    folders = Folders(config.run_dir)
    with exclusive(config.run_dir):
        Runner(config.run_dir, display).run(augment_stage(config, folders.samples, "train"))
        chosen = choose_samples(read_jsonl(folders.samples / "samples.jsonl", Sample), samples, config.seed)
        shared = SharedModel(config.model, trust_remote_code=trust_remote_code)
        places = image_folders(folders.samples)

        def open_image(name: str) -> Image.Image:
            return open_picture(resolve_image(name, places))

        with display.progress("diagnose") as progress:
            asked, readings = ask(chosen, *shared.get(), config, open_image, thorough=thorough, progress=progress)
        found = diagnose(asked, readings, config, model=shared.settings.name)
        write_json(config.run_dir / RESULT, found.model_dump(mode="json"))
    return found


def choose_samples(samples: Iterator[Sample], count: int, seed: int) -> list[Sample]:
    """`count` multi-image samples, as evenly as possible from all formats and numbers of images, the same for the same seed.

    Raises:
        DataError: there are none.
    """
    buckets: dict[Bucket, list[Sample]] = {}
    for sample in samples:
        if sample.format != "single":
            buckets.setdefault((sample.format, sample.parts), []).append(sample)
    if not buckets:
        raise DataError("expected samples of several images, got none; see `augment.formats`")
    ordered = [sorted(bucket, key=lambda s: stable_key(seed, s.id)) for _, bucket in sorted(buckets.items())]
    longest = max(map(len, ordered))
    turns = [bucket[turn] for turn in range(longest) for bucket in ordered if turn < len(bucket)]
    return sorted(turns[:count], key=lambda s: (s.format, s.parts))


def ask(
    samples: Sequence[Sample],
    model: Any,
    processor: Any,
    config: PipelineConfig,
    open_image: Callable[[str], Image.Image],
    *,
    thorough: bool,
    progress: Report,
) -> tuple[list[Asked], list[Reading]]:
    """The model's answers, together and alone, and every readout's ratios. Samples that cannot be opened are left out."""
    from mia_attention import respond
    from mia_attention.confusions import PartPrompt
    from mia_attention.profiles import layer_profile
    from mia_attention.scoring import score

    kinds = [(rows, weighted) for weighted in ([False, True] if thorough else [False]) for rows in ROWS]
    total, done = (sum(2 if weighted else 3 for _, weighted in kinds) + 1) * len(samples), 0
    readings: list[Reading] = []
    answers: dict[str, str] = {}
    for rows, weighted in kinds:
        settings = config.score.model_copy(update={"rows": rows, "value_weighted": weighted, "confusions": False})
        profile = layer_profile(samples, model, processor, settings, open_image=open_image)
        answers = {sample.id: response for sample, response, _ in profile}
        samples = [sample for sample in samples if sample.id in answers]
        for layer in profile[0][2] if profile else ():
            readings.append(Reading(rows, layer, weighted, [attentions[layer].ratio for _, _, attentions in profile]))
        progress(done := done + len(samples), total)
        others: tuple[Layer, ...] = ("rollout",) if weighted else ("rollout", "gradient")
        for other in others:
            changed = settings.model_copy(update={"layer": other})
            try:
                ratios = [s.attention.ratio for s in score(samples, model, processor, changed, open_image=open_image)]
                readings.append(Reading(rows, other, weighted, ratios))
            except ModelError as error:  # quantized models and adapters give no gradient, some no rollout
                logger.warning("readout %s is left out: %s", other, error)
            progress(done := done + len(samples), total)
    prompts = [PartPrompt(sample.id, [sample.source.paths[sample.target]], _alone(sample)) for sample in samples]
    alone = respond(
        prompts,
        model,
        processor,
        open_image=open_image,
        batch_size=config.score.batch_size,
        max_new_tokens=config.score.max_new_tokens,
    )
    progress(total, total)
    return [Asked(s, answers[s.id], said.text) for s, said in zip(samples, alone, strict=True)], readings


def _alone(sample: Sample) -> str:
    return single_header() + sample.source.question.replace(IMAGE, "").strip()


def diagnose(asked: Sequence[Asked], readings: Sequence[Reading], config: PipelineConfig, *, model: str) -> Diagnosis:
    """What the answers and ratios say. Pure."""
    from mia_attention.layers import score_layer

    wrong = [not entry.right for entry in asked]
    groups = [f"{format_}/{parts}" for format_, parts in (entry.bucket for entry in asked)]

    def scored(reading: Reading, part: Sequence[int]) -> ReadoutScore | None:
        found = score_layer(
            reading.layer, [reading.ratios[i] for i in part], [wrong[i] for i in part], [groups[i] for i in part]
        )
        if found is None:
            return None
        values = {name: getattr(found, name) for name in ("auroc", "low", "high", "samples")}
        return ReadoutScore(rows=reading.rows, layer=reading.layer, value_weighted=reading.value_weighted, **values)

    every = range(len(asked))
    pairs = [(reading, score) for reading in readings if (score := scored(reading, every)) is not None]
    pairs.sort(key=lambda pair: -pair[1].auroc)
    best = _best(readings, lambda reading, part: scored(reading, part), len(asked))
    current = configured_reading(readings, config)
    buckets = [_bucket(bucket, asked, current, config) for bucket in sorted({entry.bucket for entry in asked})]
    configured = None if current is None else scored(current, every)
    return Diagnosis(
        model=model,
        samples=len(asked),
        buckets=buckets,
        configured=configured,
        best=best,
        readouts=[score for _, score in pairs],
        findings=findings(buckets, configured, best),
        advice=advice(buckets, configured, best),
    )


def _best(
    readings: Sequence[Reading], scored: Callable[[Reading, Sequence[int]], ReadoutScore | None], count: int
) -> ReadoutScore | None:
    """Chosen on the samples of even index, measured on the others: the best of thirty is good by luck, too."""
    first = [(score.auroc, index) for index, reading in enumerate(readings) if (score := scored(reading, range(0, count, 2)))]
    return scored(readings[max(first)[1]], range(1, count, 2)) if first else None


def configured_reading(readings: Sequence[Reading], config: PipelineConfig) -> Reading | None:
    """The readout that `score` is set to; None where its layer is a mean of several or yet to be chosen."""
    layers = sorted({reading.layer for reading in readings if isinstance(reading.layer, int)})
    wanted = config.score.layer
    layer = layers[len(layers) // 2] if wanted == "middle" and layers else wanted
    for reading in readings:
        here = (reading.layer, reading.rows, reading.value_weighted)
        if here == (layer, config.score.rows, config.score.value_weighted):
            return reading
    return None


def _bucket(bucket: Bucket, asked: Sequence[Asked], reading: Reading | None, config: PipelineConfig) -> BucketFindings:
    format_, parts = bucket
    mine = [(index, entry) for index, entry in enumerate(asked) if entry.bucket == bucket]
    ratios = Ratios()
    for index, entry in mine:
        ratio = reading.ratios[index] if reading else None
        if ratio is not None:
            ratios.add(ratio, entry.right)
    threshold = threshold_for(format_, parts, config.select.thresholds)
    values = [*ratios.wrong, *ratios.right]
    return BucketFindings(
        format=format_,
        parts=parts,
        n=len(mine),
        right=sum(entry.right for _, entry in mine),
        right_alone=sum(same_answer(entry.alone, entry.sample.answer) for _, entry in mine),
        told_another=_told_another([entry for _, entry in mine]),
        mean_ratio_right=_mean(ratios.right),
        mean_ratio_wrong=_mean(ratios.wrong),
        auroc=auroc_interval([-value for value in values], [i < len(ratios.wrong) for i in range(len(values))]),
        threshold=threshold,
        right_passed=_passed(format_, ratios.right, threshold),
        wrong_passed=_passed(format_, ratios.wrong, threshold),
        inert=threshold is not None and is_inert(format_, ratios, threshold),
    )


def _told_another(asked: Sequence[Asked]) -> int | None:
    known = [
        (entry, [a for i, a in enumerate(entry.sample.source.answers) if i != entry.sample.target and a]) for entry in asked
    ]
    if not any(others for _, others in known):
        return None
    return sum(not entry.right and any(same_answer(entry.response, other) for other in others) for entry, others in known)


def _others(sample: Sample) -> list[str]:
    return [answer for index, answer in enumerate(sample.source.answers) if index != sample.target and answer]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _passed(format_: Format, ratios: Sequence[float], threshold: float | None) -> float | None:
    if threshold is None or not ratios:
        return None
    return sum(looks_elsewhere(format_, ratio, threshold) for ratio in ratios) / len(ratios)


def findings(buckets: Sequence[BucketFindings], configured: ReadoutScore | None, best: ReadoutScore | None) -> list[Finding]:
    """The sentences, most important first."""
    n = sum(bucket.n for bucket in buckets)
    right, alone = (sum(getattr(bucket, name) for bucket in buckets) for name in ("right", "right_alone"))
    if alone < MATCHES * n:
        text = (
            f"only {alone} of {n} answers equal the ground truth even with the picture alone: free answers, where equality "
            "does not tell right from wrong, so nothing is known about the attention rule; diagnose rows with short answers too"
        )
        return [Finding(name="matching", good=False, text=text), _thresholds(buckets)]
    lost = (alone - right) / n
    text = f"{alone / n:.0%} right with the picture alone, {right / n:.0%} among several: {100 * lost:.0f} points to win back"
    lines = [Finding(name="room", good=lost >= ROOM, text=text + ("" if lost >= ROOM else ", so there is little to mend"))]
    told = [bucket for bucket in buckets if bucket.told_another is not None]
    wrong = sum(bucket.n - bucket.right for bucket in told)
    if wrong:
        share = sum(bucket.told_another or 0 for bucket in told) / wrong
        lines.append(
            Finding(
                name="confusion",
                good=None,
                text=f"{share:.0%} of {wrong} wrong answers are right about another of the pictures",
            )
        )
    lines.append(_attention(configured))
    if best is not None and (configured is None or best.low > configured.auroc):
        text = f"{best.name} tells more: {best.auroc:.2f} [{best.low:.2f}, {best.high:.2f}] on samples it was not chosen on"
        lines.append(Finding(name="readout", good=best.low > 0.5, text=text))
    return [*lines, _thresholds(buckets)]


def _attention(configured: ReadoutScore | None) -> Finding:
    if configured is None:
        text = "whether the ratio tells wrong from right is not known: they never meet in a format and number of images"
        return Finding(name="attention", good=None, text=text)
    told = f"AUROC {configured.auroc:.2f} [{configured.low:.2f}, {configured.high:.2f}] with {configured.name}"
    if configured.low <= 0.5:
        text = f"low attention on the target does not tell wrong answers from right ones here ({told}; 0.5 is chance)"
    elif configured.auroc < TELLS:
        text = f"low attention on the target tells little about wrong answers ({told})"
    else:
        text = f"low attention on the target goes with wrong answers ({told})"
    return Finding(name="attention", good=configured.low > 0.5 and configured.auroc >= TELLS, text=text)


def _thresholds(buckets: Sequence[BucketFindings]) -> Finding:
    with_one = [bucket for bucket in buckets if bucket.threshold is not None]
    inert = [f"{bucket.format} of {bucket.parts}" for bucket in with_one if bucket.inert]
    if not inert:
        return Finding(
            name="thresholds", good=True, text="the thresholds divide the answers in every format and number of images"
        )
    everywhere = len(inert) == len(with_one)
    where = "everywhere" if everywhere else f"in {len(inert)} of {len(with_one)} ({', '.join(inert)})"
    text = f"the thresholds are inert {where}: they let nearly all answers through or nearly none, right or wrong"
    return Finding(name="thresholds", good=False, text=text)


def advice(
    buckets: Sequence[BucketFindings], configured: ReadoutScore | None, best: ReadoutScore | None
) -> dict[str, dict[str, Any]]:
    """Settings that follow from the findings; empty: keep what is set."""
    result: dict[str, dict[str, Any]] = {}
    if best is not None and best.low > 0.5 and (configured is None or best.low > configured.auroc):
        result["score"] = {"layer": best.layer, "rows": best.rows}
        if best.value_weighted:
            result["score"]["value_weighted"] = True
    told = best.low > 0.5 if best is not None else False
    if any(bucket.inert for bucket in buckets):
        result["select"] = {"calibrate": "auto"}
    if not told and sum(bucket.n - bucket.right for bucket in buckets) >= ENOUGH:
        result["select"] = {"attention": False}
    return result
