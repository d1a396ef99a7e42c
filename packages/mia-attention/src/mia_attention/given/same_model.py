"""Whether a server runs the model that is loaded here: the same words must be as likely on both sides."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from mia_augment import DataError, ModelError, Sample
from mia_augment.images import OpenImage

from mia_attention.answering.responses import Response
from mia_attention.given.one_pass import GivenTurn, say, turn
from mia_attention.given.said import GivenAnswers
from mia_attention.scoring.scorer import Scorer
from mia_attention.settings import ScoreSettings

logger = logging.getLogger(__name__)

PROBES = 4
"""Samples that are compared."""
TOLERANCE = 0.1
"""Nats per token by which two runs of one model may differ (bfloat16 and other kernels)."""


def check_same_model(
    given: GivenAnswers,
    model: Any,
    processor: Any,
    samples: Sequence[Sample],
    settings: ScoreSettings,
    open_image: OpenImage,
) -> None:
    """Compare the server's first answers with the local model.

    Where the server tells log-probs, the mean per token of its words must agree with the local one. Where it tells none, its
    words must be those that the local model says itself, or as likely as those.

    Raises:
        ModelError: an answer differs; both sides are shown.
    """
    scorer = Scorer(model, processor, settings, open_image)
    compared = 0
    for sample in samples[:PROBES]:
        try:
            said = given.said(sample)
            theirs = turn(sample, said, model, processor)
        except DataError as error:
            logger.warning("sample %s: the server's answer cannot be compared: %s", sample.id, error)
            continue
        prepared = scorer.prepare([sample])
        if prepared.encoded is None:
            continue
        if said.logps and len(theirs.ids) - len(said.logps) in (0, 1):  # of the same tokens, or all but the end
            known = theirs._replace(ids=theirs.ids[: len(said.logps)])
            _by_logps(sample, said.text, said.logps, say(model, prepared.encoded, [known])[0])
        else:
            _by_words(sample, theirs, say(model, prepared.encoded, [theirs])[0], scorer.answer(prepared)[0])
        compared += 1
    if not compared:
        logger.warning("none of the server's first answers can be compared: whether it runs the model here is not known")


def _by_logps(sample: Sample, text: str, logps: Sequence[float], ours: Response) -> None:
    theirs = sum(logps) / len(logps)
    if abs(theirs - ours.mean_logp) > TOLERANCE:
        raise ModelError(_differ(sample, text, f"{theirs:.2f}", f"gives these words {ours.mean_logp:.2f}"))


def _by_words(sample: Sample, theirs: GivenTurn, there: Response, here: Response) -> None:
    if theirs.text != here.text and there.mean_logp < here.mean_logp - TOLERANCE:
        own = f"says {here.text!r} with {here.mean_logp:.2f} and gives the server's words {there.mean_logp:.2f}"
        raise ModelError(_differ(sample, theirs.text, "unknown", own))


def _differ(sample: Sample, text: str, theirs: str, ours: str) -> str:
    return (
        f"sample {sample.id}: the server's answer is not this model's: it says {text!r} with a mean log-prob of {theirs} per "
        f"token, the model here {ours} (expected a difference of at most {TOLERANCE:g}); load the same checkpoint, chat "
        "template and picture settings on both sides, or set answers.same_model: false to read another model's answers"
    )
