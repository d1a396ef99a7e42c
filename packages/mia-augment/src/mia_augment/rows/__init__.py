"""One row of single-image data as a question, its answer and its picture, from whatever shape it comes in."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
