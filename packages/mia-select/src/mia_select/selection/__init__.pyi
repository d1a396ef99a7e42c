from .candidates import stable_key as stable_key
from .funnel import Selection as Selection
