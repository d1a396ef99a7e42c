"""What a model is asked and has to answer, as its chat template writes it. Needs no torch."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
