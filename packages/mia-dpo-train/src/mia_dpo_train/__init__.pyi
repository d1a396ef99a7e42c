from .environment import check_environment as check_environment
from .losses import PREFERENCE_LOSSES as PREFERENCE_LOSSES
from .losses import dpo_loss as dpo_loss
from .losses import hinge_loss as hinge_loss
from .losses import ipo_loss as ipo_loss
from .losses import nll as nll
from .losses import training_loss as training_loss
from .models.merge import MergeReport as MergeReport
from .models.merge import export_merged as export_merged
from .models.quantize import four_bit_config as four_bit_config
from .models.trained_folder import is_adapter as is_adapter
from .models.trained_folder import trained_weights as trained_weights
from .models.trained_folder import with_adapter as with_adapter
from .original.llava_conversion import Converted as Converted
from .original.llava_conversion import convert_llava as convert_llava
from .original.llava_names import read_original as read_original
from .original.llava_prompt import LLAVA_TEMPLATE as LLAVA_TEMPLATE
from .settings import LoraSettings as LoraSettings
from .settings import LossTerm as LossTerm
from .settings import TrainSettings as TrainSettings
from .stage import split_pairs as split_pairs
from .stage import train_pairs as train_pairs
from .stage import train_stage as train_stage
from .training.trainer import TrainResult as TrainResult
from .training.trainer import train as train

__version__: str
