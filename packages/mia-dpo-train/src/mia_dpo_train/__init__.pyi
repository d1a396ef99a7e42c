from .environment import check_environment as check_environment
from .models.merge import MergeReport as MergeReport
from .models.merge import export_merged as export_merged
from .models.quantize import four_bit_config as four_bit_config
from .settings import LoraSettings as LoraSettings
from .settings import TrainSettings as TrainSettings
from .stage import train_pairs as train_pairs
from .training.trainer import TrainResult as TrainResult
from .training.trainer import train as train

__version__: str
