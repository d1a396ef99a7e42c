"""`mia evaluate`: how the evaluation's models are loaded and asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mia_augment import LogpAlone, Sample
from mia_augment.images import picture_opener
from mia_augment.storage import Progress, Stage
from mia_dpo_train import is_adapter, with_adapter
from mia_select.evaluation import AskedModels, alternatives, evaluation_stage, most_likely

from mia_cli.config.schema import EvaluateSettings
from mia_cli.loading.load import SharedModel, load

if TYPE_CHECKING:
    from mia_attention import HeldOutAnswer, Options


def evaluate_stage(
    folder_in: Path, out: Path, settings: EvaluateSettings, shared: SharedModel, trained: Callable[[], Path | None]
) -> Stage:
    """The evaluation of a model and of what was trained on it (see `evaluation_stage`).

    Args:
        shared: the base model, loaded once for both when an adapter was trained.
        trained: gives what was trained; None: only the base model is asked.
    """
    scale = settings.delimiter_scale

    def ask(
        samples: Sequence[Sample],
        file: Path,
        key: str,
        progress: Progress,
        *,
        trained: Path | None,
        alone: bool,
        steered: bool = False,
    ) -> Sequence[HeldOutAnswer]:
        from mia_attention import Asking, answer_all, target_alone  # needs torch, which a plan does not

        source = settings.trained_answers if trained else settings.answers
        likely = settings.choices == "likelihood" and source is None and scale is None
        options = _options if likely else lambda _: None
        asking = Asking(
            picture_opener(folder_in),
            settings.batch_size,
            settings.max_new_tokens,
            options,
            source,
            delimiter_scale=scale if steered else None,
        )
        asked = [target_alone(sample) for sample in samples] if alone else samples
        return answer_all(asked, lambda: load_trained(shared, trained), file, key, asking, progress=progress)

    def weigh(
        samples: Sequence[Sample], answers: Sequence[str], file: Path, key: str, progress: Progress
    ) -> Sequence[LogpAlone]:
        from mia_attention import Asking, weigh_all

        asking = Asking(picture_opener(folder_in), settings.batch_size, settings.max_new_tokens)
        return weigh_all(samples, answers, shared.get, file, key, asking, progress=progress)

    models = AskedModels(shared.id, trained, ask, weigh, steered=scale is not None)
    return evaluation_stage(folder_in, out, _decoding(settings), models)


def _decoding(settings: EvaluateSettings) -> dict[str, Any]:
    """The settings that answers depend on."""
    decoding = settings.model_dump(mode="json", include={"batch_size", "max_new_tokens", "choices"})
    sources = {"answers": settings.answers, "trained_answers": settings.trained_answers}
    decoding |= {name: source.identity() for name, source in sources.items() if source is not None}
    decoding |= {"alone": True} if settings.alone else {}
    if settings.delimiter_scale is not None:
        decoding |= {"delimiter_scale": settings.delimiter_scale, "choices": "answer"}
    return decoding


def _options(sample: Sample) -> Options | None:
    """The options of a multiple-choice question; the likeliest is the answer."""
    from mia_attention import Options

    found = alternatives(sample.prompt, sample.answer)
    if found is None:
        return None
    return Options(
        found.texts, lambda all: most_likely([each.logp for each in all], [each.tokens for each in all], by=found.by)
    )


def load_trained(shared: SharedModel, trained: Path | None) -> tuple[Any, Any]:
    """(model, processor) of the base model (None), the base with its adapter, or the fully fine-tuned one."""
    if trained is None:
        return shared.get()
    if not is_adapter(trained):
        return load(str(trained), shared.settings.dtype, shared.settings.device)
    model, processor = shared.get()
    adapted = with_adapter(model, trained, shared.settings.name)
    shared.release()  # the adapter's layers are in the model now
    return adapted, processor
