"""Pairs for other trainers (TRL, LLaMA-Factory, ms-swift, MIA-DPO, parquet), and back."""

from mia_select.export.files import export_pairs
from mia_select.export.layouts import LAYOUTS
from mia_select.export.trl import trl_rows
from mia_select.importing import import_pairs

__all__ = ["LAYOUTS", "export_pairs", "import_pairs", "trl_rows"]
