"""Where a vision-language model looks while it answers, at the speed of plain generation.

Names are loaded when first used, so that `mia_attention.settings` can be read without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mia_attention.adapters import Adapter, register_adapter
    from mia_attention.analysis import Analysis, Report, analyze
    from mia_attention.calls import Call
    from mia_attention.capture import Captured, capture_attention
    from mia_attention.coverage import BoxCoverage
    from mia_attention.given import Reading, read_answers
    from mia_attention.inputs import Encoded
    from mia_attention.layers import LayerChoice, choose_layer
    from mia_attention.likelihood import Likelihood, likelihoods, try_likelihoods
    from mia_attention.maps import Look, look
    from mia_attention.profiles import find_layer, layer_profile
    from mia_attention.responses import Response, respond, try_respond
    from mia_attention.rollouts import capture_rollout, rollout
    from mia_attention.scoring import score
    from mia_attention.settings import ScoreSettings
    from mia_attention.stage import score_samples
    from mia_attention.teacher import attend

_HOMES = {
    "Analysis": "analysis",
    "BoxCoverage": "coverage",
    "Captured": "capture",
    "LayerChoice": "layers",
    "Likelihood": "likelihood",
    "Look": "maps",
    "Reading": "given",
    "Report": "analysis",
    "Response": "responses",
    "ScoreSettings": "settings",
    "Adapter": "adapters",
    "Call": "calls",
    "Encoded": "inputs",
    "register_adapter": "adapters",
    "analyze": "analysis",
    "attend": "teacher",
    "capture_attention": "capture",
    "capture_rollout": "rollouts",
    "choose_layer": "layers",
    "find_layer": "profiles",
    "layer_profile": "profiles",
    "likelihoods": "likelihood",
    "look": "maps",
    "read_answers": "given",
    "respond": "responses",
    "rollout": "rollouts",
    "score": "scoring",
    "score_samples": "stage",
    "try_likelihoods": "likelihood",
    "try_respond": "responses",
}

__all__ = [
    "Adapter",
    "Analysis",
    "BoxCoverage",
    "Call",
    "Captured",
    "Encoded",
    "LayerChoice",
    "Likelihood",
    "Look",
    "Reading",
    "Report",
    "Response",
    "ScoreSettings",
    "analyze",
    "attend",
    "capture_attention",
    "capture_rollout",
    "choose_layer",
    "find_layer",
    "layer_profile",
    "likelihoods",
    "look",
    "read_answers",
    "register_adapter",
    "respond",
    "rollout",
    "score",
    "score_samples",
    "try_likelihoods",
    "try_respond",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
