"""From attention over positions to masses, ratios, maps and the layer that tells most."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
