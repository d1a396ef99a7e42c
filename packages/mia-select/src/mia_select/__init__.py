"""Which preference pairs are worth learning from, and proof of whether it worked."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
