from .every_readout import EveryReadout as EveryReadout
from .every_readout import every_readout as every_readout
from .layer_choice import score_layer as score_layer
from .layer_profile import layer_profile as layer_profile
