"""What makes a preference pair useless or harmful to train on, told from the record alone."""

from __future__ import annotations

import math
from collections.abc import Collection

from mia_augment.records import IMAGE, PreferencePair

END_TOKENS = frozenset({
    "</s>", "<|im_end|>", "<|endoftext|>", "<eos>", "<end_of_turn>", "<turn|>", "<end_of_utterance>", "<|eot_id|>",
    "<|eom_id|>", "<|end_of_text|>", "<|end|>", "<|eot|>", "<|end_of_turn|>", "<|END_OF_TURN_TOKEN|>", "<|return|>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
})  # fmt: skip
"""How the common models end a turn or a text."""


def pair_problem(pair: PreferencePair, end_tokens: Collection[str] = END_TOKENS) -> str | None:
    """Why nothing right can be learnt from a pair; None: nothing speaks against it.

    An answer must hold text, no `<image>`, and no end token, since training puts the model's own after it; the two must
    differ in more than the whitespace around them; scores must be finite or None.

    Args:
        end_tokens: texts of which none may stand in an answer.
    """
    for side, text in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        if not text.strip():
            return f"empty answer: expected text as the {side} answer, got {text!r}"
        if IMAGE in text:
            return f"placeholder: expected {IMAGE} in the prompt only, the {side} answer holds it"
        if found := next((token for token in sorted(end_tokens) if token in text), None):
            return (
                f"end token: the {side} answer holds {found!r}, which training itself puts after every answer; "
                "remove it from the text"
            )
    if pair.chosen.strip() == pair.rejected.strip():
        return f"same answers: chosen and rejected are both {_shown(pair.chosen)}, so neither can be preferred"
    for name, value in pair.scores:
        if value is not None and not math.isfinite(value):
            return f"score: expected a finite number or null as {name}, got {value}"
    return None


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:60] + "...")
