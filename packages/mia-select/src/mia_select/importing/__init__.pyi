from .pairs import SkippedRow as SkippedRow
from .stage import IMPORT_FORMATS as IMPORT_FORMATS
from .stage import import_folder as import_folder
from .stage import import_pairs as import_pairs
from .stage import import_stage as import_stage
