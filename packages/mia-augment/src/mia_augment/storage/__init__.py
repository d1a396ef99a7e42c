"""Files of a stage: written whole or not at all, locked by one writer, known by their content."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
