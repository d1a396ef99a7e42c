"""Exact DPO on multi-image preference pairs, with shared prefixes and stored reference log-probs."""

import importlib.metadata

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)

__version__ = importlib.metadata.version("mia-dpo-train")
