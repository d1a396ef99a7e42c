from .pair_files import export_pairs as export_pairs
from .trl_rows import trl_rows as trl_rows
