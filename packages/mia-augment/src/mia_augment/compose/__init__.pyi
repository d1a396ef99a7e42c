from .noise import disturb as disturb
from .prompts import label as label
from .prompts import sequence_header as sequence_header
from .prompts import single_header as single_header
