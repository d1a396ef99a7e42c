"""Preference pairs of other tools (TRL, LLaMA-Factory, ms-swift, MIA-DPO, RLAIF-V, MMPR), and those that we exported."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
