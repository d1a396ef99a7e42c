"""Find out from the record alone why a preference pair is useless or harmful to train on."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from mia_augment.compose.prompts import IMAGE
from mia_augment.records import PreferencePair

END_TOKENS = frozenset({
    "</s>", "<|im_end|>", "<|endoftext|>", "<eos>", "<end_of_turn>", "<turn|>", "<end_of_utterance>", "<|eot_id|>",
    "<|eom_id|>", "<|end_of_text|>", "<|end|>", "<|eot|>", "<|end_of_turn|>", "<|END_OF_TURN_TOKEN|>", "<|return|>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
})  # fmt: skip
"""How the common models end a turn or a text."""


def pair_problem(pair: PreferencePair, end_tokens: Collection[str] = END_TOKENS) -> str | None:
    """Why nothing right can be learnt from a pair; None: no reason was found.

    An answer must hold text, no `<image>`, and no end token, since training puts the model's own after it; the two must
    differ in more than the whitespace around them; scores must be finite or None.

    Args:
        end_tokens: texts of which none may stand in an answer.
    """
    others = [answer.text for answer in pair.rejected_answers]
    for side, text in (("chosen", pair.chosen), *(("rejected", text) for text in others)):
        if not text.strip():
            return f"empty answer: expected text as the {side} answer, got {text!r}"
        if IMAGE in text:
            return f"placeholder: expected {IMAGE} in the prompt only, the {side} answer holds it"
        if found := next((token for token in sorted(end_tokens) if token in text), None):
            return (
                f"end token: the {side} answer holds {found!r}, which ends an answer and which training itself puts there; "
                "remove it from the text"
            )
    if pair.rejected_images == pair.images:
        return "same pictures: rejected_images are the pair's own images, so neither can be preferred"
    if pair.chosen.strip() in [text.strip() for text in others]:
        return f"same answers: chosen and rejected are both {_shown(pair.chosen)}, so neither can be preferred"
    for name, value in pair.scores:
        if value is not None and not math.isfinite(value):
            return f"score: expected a finite number or null as {name}, got {value}"
    return None


def without_end_tokens(
    pairs: Sequence[PreferencePair], end_tokens: Collection[str] = END_TOKENS
) -> tuple[list[PreferencePair], int]:
    """The pairs without end tokens at the end of their answers, which would be trained twice; and how many pairs had one."""
    trimmed, count = [], 0
    for pair in pairs:
        more = [each.model_copy(update={"text": _without_end(each.text, end_tokens)}) for each in pair.more_rejected]
        texts = {"chosen": _without_end(pair.chosen, end_tokens), "rejected": _without_end(pair.rejected, end_tokens)}
        changed = pair.model_copy(update={**texts, "more_rejected": more})
        trimmed.append(changed)
        count += changed != pair
    return trimmed, count


def _without_end(text: str, end_tokens: Collection[str]) -> str:
    """A text without end tokens behind it, nor the blanks around those; unchanged where it has none."""
    while found := next((token for token in end_tokens if text.rstrip().endswith(token)), None):
        text = text.rstrip().removesuffix(found).rstrip()
    return text


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "...")
