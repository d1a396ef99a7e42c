"""The start-up check of answers: what training takes for an answer is what the model says."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from mia_augment import FORMATS, DataError, ModelError, PreferencePair
from mia_augment.prompting import emitted_ids, token_text
from torch import Tensor

from mia_dpo_train.data.encode import PairBatch, PairEncoder, collate

logger = logging.getLogger(__name__)

_ALONE: dict[str, Any] = {"more_rejected": [], "rejected_images": None}
CHECKED = 8
"""Own answers looked at, the shortest first."""
WORDING_TOLERANCE = 2.0
"""By how many nats the template's tokens of an answer may be less likely than those that the model emitted for it. Greedy
answers lose next to nothing where the tokens are the same; a wrong first or last token costs 5 to 15."""
SEEN_TOLERANCE = 0.25
"""How far the mean log-prob per token may lie from what scoring saw, in nats; rounding to 16 bits moves it by less."""
_CLEAN = tuple(name for name, row in FORMATS.items() if row.sigma == 0)
"""Formats whose pictures scoring shows as they are, unless it is told otherwise."""


@dataclass(frozen=True)
class OwnAnswer:
    """One answer that the model gave itself, in nats."""

    id: str
    emitted: Sequence[int]
    """Token ids as the model gave them."""
    rendered: Sequence[int]
    """Token ids of the same text as the chat template writes it."""
    emitted_logp: float
    rendered_logp: float
    seen: float | None
    """Mean log-prob per token when it was scored; None: not kept, or of a view that scoring disturbs by default."""


def check_own_answers(
    pairs: Sequence[PreferencePair],
    encoder: PairEncoder,
    compute: Callable[[PairBatch], Tensor],
    device: torch.device,
    pad: int,
) -> None:
    """Compare the reference log-probs of some own answers with those of the template's wording and of scoring.

    Most answers less likely as the template words them means that the template's turn is not the model's: chosen answers would
    be trained on tokens that the model never says. Other differences from scoring (another model, adapter or type, noise on the
    view) are legitimate and logged.

    Args:
        compute: the untrained model's log-probs of a batch, (answers, pairs).

    Raises:
        ModelError: the template's wording of most answers is less likely than the emitted tokens by more than
            `WORDING_TOLERANCE`; with both as tokens.
    """
    found = [_measure(pair, encoder, compute, device, pad) for pair in islice(_own(pairs, encoder), CHECKED)]
    checked = [answer for answer in found if answer is not None]
    reworded = [answer for answer in checked if list(answer.rendered) != list(answer.emitted)]
    worse = [answer for answer in reworded if not answer.emitted_logp - answer.rendered_logp <= WORDING_TOLERANCE]
    if 2 * len(worse) > len(checked):
        raise ModelError(_other_words(worse[0], encoder, len(worse), len(checked)))
    _compare_with_scoring(checked)


def _own(pairs: Sequence[PreferencePair], encoder: PairEncoder) -> Iterator[PreferencePair]:
    """The shortest answers whose emitted tokens are known, come to an end, and are those that the tokenizer makes of a text."""
    tokenizer = encoder.tokenizer
    never_ends = {tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id}
    ends = {*tokenizer.all_special_ids} - never_ends | {*encoder.stops}
    known = [pair for pair in pairs if pair.rejected_ids and pair.rejected_ids[-1] in ends]
    for pair in sorted(known, key=lambda pair: (len(pair.rejected_ids or []), pair.id)):
        ids = emitted_ids(encoder.processor, pair.rejected_ids, pair.rejected)
        if ids and tokenizer(tokenizer.decode(ids), add_special_tokens=False)["input_ids"] == ids:
            yield pair


def _measure(
    pair: PreferencePair,
    encoder: PairEncoder,
    compute: Callable[[PairBatch], Tensor],
    device: torch.device,
    pad: int,
) -> OwnAnswer | None:
    """Log-probs of an answer in both wordings, as the chosen and the rejected side of one pair."""
    try:
        both = encoder(pair.model_copy(update={"chosen": pair.rejected, "chosen_ids": None, **_ALONE}))
    except DataError:  # it is skipped, and said why, where all pairs are measured
        return None
    with torch.no_grad():
        rendered, emitted = compute(collate([both], pad).to(device)).float()[:, 0].tolist()
    perplexity = pair.scores.perplexity if pair.format in _CLEAN else None
    seen = -math.log(perplexity) if perplexity else None
    return OwnAnswer(pair.id, both.rejected.tolist(), both.chosen.tolist(), emitted, rendered, seen)


def _other_words(answer: OwnAnswer, encoder: PairEncoder, worse: int, checked: int) -> str:
    seen = "" if answer.seen is None else f" (scoring saw {answer.seen * len(answer.emitted):.2f})"
    return (
        f"the chat template's answers are not what the model says: {worse} of {checked} own answers are less likely by more "
        f"than {WORDING_TOLERANCE} nats as the template writes them. Pair {answer.id}: emitted, {answer.emitted_logp:.2f} "
        f"nats{seen}: {token_text(encoder.processor, answer.emitted)}; by the template, {answer.rendered_logp:.2f} nats: "
        f"{token_text(encoder.processor, answer.rendered)}. Chosen answers would be trained on such tokens; mend the "
        "assistant's turn in the processor's chat template (chat_template.jinja), or score the samples anew if they were "
        "answered under another one"
    )


def _compare_with_scoring(answers: Sequence[OwnAnswer]) -> None:
    scored = [answer for answer in answers if answer.seen is not None]
    differences = [abs(answer.emitted_logp / len(answer.emitted) - (answer.seen or 0.0)) for answer in scored]
    far = sum(not difference <= SEEN_TOLERANCE for difference in differences)
    if 2 * far > len(scored):
        logger.warning(
            "%d of %d own answers have another mean log-prob than when they were scored (by up to %.2f nats a token): they "
            "come from another model, adapter, type or prompt, or from a noisy view (score.disturb); where that is not meant, "
            "score the samples with this model",
            far,
            len(scored),
            max(differences),
        )
    elif scored:
        logger.info("own answers: %d checked, mean log-probs as scored within %.3f nats", len(scored), max(differences))
