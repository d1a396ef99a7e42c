"""Files of rows, value by value: JSON, JSONL, CSV, parquet, tar, packed or not."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
