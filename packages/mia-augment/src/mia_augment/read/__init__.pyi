from .dataset import picture_folder as picture_folder
from .dataset import read_values as read_values
from .json_values import Damaged as Damaged
