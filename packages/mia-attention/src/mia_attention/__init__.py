"""Where a vision-language model looks while it answers, at the speed of plain generation.

Names are loaded when first used, so that `ScoreSettings` can be read without torch.
"""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
