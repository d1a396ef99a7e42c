"""Turn single-image instruction data into multi-image data: sequences, grids, pic-in-pic."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
