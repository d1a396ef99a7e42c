"""`mia diagnose`: what to know about a model before aligning it.

Is there anything to mend? Does low attention on the target tell wrong answers from right ones, and read from where? Do the
thresholds decide anything? Answers to some hundred samples, before a day is spent on all of them.
"""

from __future__ import annotations

from mia_augment import Sample
from mia_augment.images import picture_opener
from mia_augment.storage import only_writer, read_jsonl, read_manifest, write_json
from mia_select.diagnosis import (
    AnsweredSample,
    Diagnosis,
    ReadoutRatios,
    choose_samples,
    diagnose,
    find_readout,
    with_references,
)

from mia_cli.config.schema import PipelineConfig
from mia_cli.layout import Folders
from mia_cli.loading.load import SharedModel
from mia_cli.pipeline import check_runnable, samples_stage
from mia_cli.runner import Runner
from mia_cli.terminal.display import Display

DIAGNOSIS = "diagnosis.json"


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
    folders, score = Folders(config.run_dir), config.score
    shared = SharedModel(config.model, trust_remote_code=trust_remote_code)
    with only_writer(config.run_dir):
        if read_manifest(folders.samples) is None:
            shared.check_loadable()
        from mia_attention.scoring import every_readout  # needs torch, which the checks before do not

        Runner(config.run_dir, display).run(samples_stage(config, folders.samples))
        chosen = choose_samples(read_jsonl(folders.samples / "samples.jsonl", Sample), samples, config.seed)
        open_image = picture_opener(folders.samples)
        with display.progress("diagnose") as progress:
            read = every_readout(chosen, *shared.get(), score, open_image=open_image, thorough=thorough, progress=progress)
        readouts = [ReadoutRatios(*readout) for readout in read.readouts]
        answered = [AnsweredSample(s, read.responses[s.id], own) for s, own in zip(read.samples, read.alone, strict=True)]
        readouts = with_references(readouts, answered, read.sureness, read.states)
        configured = find_readout(readouts, read.configured, score.rows, score.value_weighted)
        found = diagnose(answered, readouts, config.select.thresholds, model=shared.settings.name, configured=configured)
        write_json(config.run_dir / DIAGNOSIS, found.model_dump(mode="json"))
    return found
