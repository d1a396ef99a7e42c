from .scorer import Scorer as Scorer
from .scorer import score as score
