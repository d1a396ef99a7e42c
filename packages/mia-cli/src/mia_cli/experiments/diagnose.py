"""`mia diagnose`: what to know about a model before aligning it.

Is there anything to mend? Does low attention on the target tell wrong answers from right ones, and read from where? Do the
thresholds decide anything? AnsweredSample of some hundred samples, before a day is spent on all of them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from mia_attention import ScoreSettings
from mia_augment import FORMATS, IMAGE, Bucket, DataError, ModelError, Readout, Rows, Sample
from mia_augment.compose import single_header
from mia_augment.images import OpenImage, picture_opener
from mia_augment.storage import Progress, only_writer, read_jsonl, write_json
from mia_select import stable_key
from mia_select.diagnosis import AnsweredSample, Diagnosis, ReadoutRatios, diagnose, find_readout

from mia_cli.config.schema import PipelineConfig
from mia_cli.layout import Folders
from mia_cli.loading.load import SharedModel
from mia_cli.pipeline import check_runnable, samples_stage
from mia_cli.runner import Runner
from mia_cli.terminal.display import Display

logger = logging.getLogger(__name__)

DIAGNOSIS = "diagnosis.json"
QUERY_ROWS: tuple[Rows, ...] = ("generated", "predicting", "question")


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
    with only_writer(config.run_dir):
        Runner(config.run_dir, display).run(samples_stage(config, folders.samples))
        chosen = choose_samples(read_jsonl(folders.samples / "samples.jsonl", Sample), samples, config.seed)
        shared = SharedModel(config.model, trust_remote_code=trust_remote_code)
        open_image = picture_opener(folders.samples)
        with display.progress("diagnose") as progress:
            answered, readouts, layer = ask(chosen, *shared.get(), config, open_image, thorough=thorough, progress=progress)
        configured = find_readout(readouts, layer, config.score.rows, config.score.value_weighted)
        found = diagnose(answered, readouts, config.select.thresholds, model=shared.settings.name, configured=configured)
        write_json(config.run_dir / DIAGNOSIS, found.model_dump(mode="json"))
    return found


def choose_samples(samples: Iterator[Sample], count: int, seed: int) -> list[Sample]:
    """`count` multi-image samples, as evenly as possible from all formats and numbers of images, the same for the same seed.

    Raises:
        DataError: there are none.
    """
    buckets: dict[Bucket, list[Sample]] = {}
    for sample in samples:
        if FORMATS[sample.format].several:
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
    open_image: OpenImage,
    *,
    thorough: bool,
    progress: Progress,
) -> tuple[list[AnsweredSample], list[ReadoutRatios], Readout | None]:
    """The model's answers, together and alone, every readout's ratios, and which layer of these `score` would read.

    Samples that cannot be opened are left out. What `score` is set to is always read, unless it is a choice among these (None).
    """
    from mia_attention import READOUTS, readout_kind, readout_of
    from mia_attention.measure import layer_profile

    wanted = (config.score.rows, config.score.value_weighted)
    kinds = [(rows, weighted) for weighted in sorted({False, thorough, wanted[1]}) for rows in QUERY_ROWS]

    def beside(rows: Rows, weighted: bool) -> list[Readout]:
        """What is read besides the layers; what rows or weights do not change is read once."""
        named = [(name, kind) for name, kind in READOUTS.items() if kind.resolve is None]
        return [name for name, kind in named if (kind.weighable or not weighted) and (kind.rowed or rows == wanted[0])]

    passes = sum(1 + len(beside(*kind)) for kind in kinds)
    total, done = (passes + 1) * len(samples), 0
    configured = None if readout_kind(config.score.layer).from_samples else readout_of(model, config.score)
    readouts: list[ReadoutRatios] = []
    answers: dict[str, str] = {}
    for rows, weighted in kinds:
        settings = config.score.model_copy(
            update={"rows": rows, "value_weighted": weighted, "confusions": False, "own_answer": False}
        )
        profile = layer_profile(samples, model, processor, settings, open_image=open_image)
        answers = {sample.id: response for sample, response, _ in profile}
        samples = [sample for sample in samples if sample.id in answers]
        for layer in profile[0][2] if profile else ():
            readouts.append(ReadoutRatios(rows, layer, weighted, [attentions[layer].ratio for _, _, attentions in profile]))
        progress(done := done + len(samples), total)
        others = beside(rows, weighted)
        read = [*others, *(readout.layer for readout in readouts)]
        if (rows, weighted) == wanted and configured is not None and configured not in read:
            others.append(configured)  # a mean of several layers, or one that sees only a part of the prompt
        for other in others:
            changed = settings.model_copy(update={"layer": other})
            if (ratios := _ratios(samples, model, processor, changed, open_image)) is not None:
                readouts.append(ReadoutRatios(rows, other, weighted, ratios))
            progress(done := done + len(samples), total)
    alone = _answers_alone(samples, model, processor, config, open_image)
    progress(total, total)
    return [AnsweredSample(s, answers[s.id], text) for s, text in zip(samples, alone, strict=True)], readouts, configured


def _ratios(
    samples: Sequence[Sample], model: Any, processor: Any, settings: ScoreSettings, open_image: OpenImage
) -> list[float | None] | None:
    """Every sample's ratio; None where the model cannot be read so."""
    from mia_attention.scoring import score

    try:
        return [s.attention.ratio for s in score(samples, model, processor, settings, open_image=open_image)]
    except ModelError as error:  # quantized models and adapters give no gradient, some no rollout
        logger.warning("readout %s is left out: %s", settings.layer, error)
        return None


def _answers_alone(
    samples: Sequence[Sample], model: Any, processor: Any, config: PipelineConfig, open_image: OpenImage
) -> list[str]:
    """What the model answers about each target's own picture. Where that cannot be asked, nothing, which is no right answer."""
    from mia_attention import Response, try_respond
    from mia_attention.answering import PartPrompt

    prompts = [PartPrompt(sample.id, [sample.source.paths[sample.target]], _alone(sample)) for sample in samples]
    limits = {"batch_size": config.score.batch_size, "max_new_tokens": config.score.max_new_tokens}
    said = try_respond(prompts, model, processor, open_image=open_image, **limits)
    return [response.text if isinstance(response, Response) else "" for response in said]


def _alone(sample: Sample) -> str:
    return single_header() + sample.source.question.replace(IMAGE, "").strip()
