"""Kinds of hallucination by their causes: which other pictures an answer comes from, by hiding one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mia_augment import Sample, Skipped, same_answer
from mia_augment.images import OpenImage

from mia_attention.answering.batches import run_in_order
from mia_attention.answering.responses import Response, all_used
from mia_attention.causes.part_places import part_places
from mia_attention.causes.prompt_places import hidden_images
from mia_attention.causes.steering import reweighting
from mia_attention.hallucinations import Kind
from mia_attention.scoring.scorer import Prepared, Scorer
from mia_attention.settings import ScoreSettings


@dataclass(frozen=True)
class HallucinationCause:
    """What an answer is without each picture.

    Attributes:
        kind: see `kind_by_cause`.
        answer: with all pictures.
        without: by the picture's number (parts of composed pictures count as pictures), the answer while it is hidden.
        changed: pictures without which the answer says something else.
    """

    kind: Kind | None
    answer: str
    without: dict[int, str]
    changed: list[int]


def kind_by_cause(target: int, changed: Sequence[int]) -> Kind | None:
    """The kind of a wrong answer by the pictures without which it changes.

    `sequence_confusion`: one picture other than the target; `element_interference`: several of them; `focused`: the target
    alone, so that the picture asked about is misread; None: no single picture makes a difference.

    >>> kind_by_cause(0, [2]), kind_by_cause(0, [1, 2]), kind_by_cause(0, [0])
    ('sequence_confusion', 'element_interference', 'focused')
    """
    others = [image for image in changed if image != target]
    if len(others) > 1:
        return "element_interference"
    if others:
        return "sequence_confusion"
    return "focused" if target in changed else None


def find_causes(
    samples: Sequence[Sample],
    model: Any,
    processor: Any,
    settings: ScoreSettings | None = None,
    *,
    open_image: OpenImage,
    layers: Sequence[int] | None = None,
) -> Iterator[HallucinationCause]:
    """Answer samples with all pictures, and again with each one hidden from everything but itself, in input order.

    Costs an answer more for each picture. Most useful on samples that are answered wrongly.

    Args:
        settings: view, batch size and longest answer, as for `mia_attention.score`.
        layers: in which pictures are hidden; None: all.

    Raises:
        DataError: a picture cannot be used.
        ModelError: the model's attention cannot be changed.
    """
    settings = settings or ScoreSettings()
    scorer = Scorer(model, processor, settings, open_image, readouts=[0])

    def run(prepared: Prepared) -> list[HallucinationCause | Skipped]:
        return prepared.usable.in_order(_causes(scorer, model, prepared, layers))

    yield from all_used(run_in_order(samples, settings.batch_size, scorer.prepare, run, lambda sample: sample))


def _causes(scorer: Scorer, model: Any, prepared: Prepared, layers: Sequence[int] | None) -> list[HallucinationCause]:
    if prepared.encoded is None:
        return []
    places = part_places(prepared.samples, prepared.columns, prepared.encoded)
    answers = [response.text for response in scorer.answer(prepared)]
    without: list[dict[int, str]] = [{} for _ in answers]
    for image in range(max(map(len, places.images))):
        with reweighting(model, hidden_images(places, [image]), layers=layers):
            responses: list[Response] = scorer.answer(prepared)
        for index, part in enumerate(places.images):
            if image < len(part) and bool(part[image].any()):
                without[index][image] = responses[index].text
    found = []
    for sample, answer, other in zip(prepared.samples, answers, without, strict=True):
        changed = [image for image, text in other.items() if not same_answer(text, answer)]
        found.append(HallucinationCause(kind_by_cause(sample.target, changed), answer, other, changed))
    return found
