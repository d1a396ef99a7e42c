"""Pairs for other trainers (TRL, LLaMA-Factory, ms-swift, MIA-DPO, parquet), and back."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
