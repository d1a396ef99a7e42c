"""Preference pairs of other tools (TRL, LLaMA-Factory, ms-swift, MIA-DPO, RLAIF-V, MMPR), and those that we exported."""

from mia_select.importing.pairs import SkippedRow
from mia_select.importing.stage import FORMATS, import_folder, import_pairs

__all__ = ["FORMATS", "SkippedRow", "import_folder", "import_pairs"]
