from .every_readout import EveryReadout as EveryReadout
from .every_readout import every_readout as every_readout
from .scorer import Scorer as Scorer
from .scorer import score as score
