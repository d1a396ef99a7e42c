"""Pairs as other trainers know them: two answers to one prompt, or one answer under two sets of pictures."""

from __future__ import annotations

from mia_augment import PreferencePair, RejectedAnswer


def plain_pairs(pair: PreferencePair) -> list[PreferencePair]:
    """One pair for each rejected answer, and one for the other pictures; the first keeps the id, the others get #2, #3 .."""
    made = [_with(pair, answer) for answer in pair.rejected_answers]
    if pair.rejected_images is not None:
        alone = _with(pair, RejectedAnswer(text=pair.chosen))
        made.append(alone.model_copy(update={"rejected_images": pair.rejected_images}))
    return [
        each.model_copy(update={"id": pair.id if number == 1 else f"{pair.id}#{number}"}) for number, each in enumerate(made, 1)
    ]


def _with(pair: PreferencePair, answer: RejectedAnswer) -> PreferencePair:
    changes = {"rejected": answer.text, "rejected_ids": answer.ids, "more_rejected": [], "rejected_images": None}
    return pair.model_copy(update=changes)
