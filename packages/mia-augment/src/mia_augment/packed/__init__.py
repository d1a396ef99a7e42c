"""Samples packed into files of many, for other machines and loaders: WebDataset tar, Parquet, JSONL."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
