"""Before and after on the same held-out samples: accuracy, mistakes, comparisons."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
