from .scorer import Scorer as Scorer
from .scorer import readout_of as readout_of
from .scorer import score as score
