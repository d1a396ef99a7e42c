"""The perplexity rule: an answer the model was sure of is no likely hallucination."""

from __future__ import annotations

from mia_select.rules.candidate import Candidate
from mia_select.settings import SelectSettings


def too_sure(candidate: Candidate, settings: SelectSettings) -> float | None:
    """The perplexity of an own answer, exp(-mean log-prob of its tokens, in nats), if it is at most `min_perplexity`."""
    value, limit = candidate.perplexity, settings.min_perplexity
    return value if candidate.own and limit is not None and value is not None and value <= limit else None
