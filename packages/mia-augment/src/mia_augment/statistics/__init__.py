"""Numbers with their uncertainty: proportions, paired differences, areas under the curve. All intervals are 95 %."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
