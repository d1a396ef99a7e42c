"""What to know about a model before aligning it, from its answers and the attention it paid: findings and advice."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
