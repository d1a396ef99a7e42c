from .pack import PACKED_KINDS as PACKED_KINDS
from .pack import pack_samples as pack_samples
