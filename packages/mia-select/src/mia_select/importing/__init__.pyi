from .pairs import SkippedRow as SkippedRow
from .stage import FORMATS as FORMATS
from .stage import import_folder as import_folder
from .stage import import_pairs as import_pairs
