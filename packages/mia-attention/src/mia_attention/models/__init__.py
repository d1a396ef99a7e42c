"""What must be known of a model: its decoder, its inputs, which tokens and pixels belong together."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
