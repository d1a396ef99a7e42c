from .layer_choice import score_layer as score_layer
from .layer_profile import layer_profile as layer_profile
