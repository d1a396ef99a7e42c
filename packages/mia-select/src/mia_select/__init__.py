"""Which preference pairs are worth learning from, and proof of whether it worked."""

from mia_select.evaluation import Evaluation, Prediction, predict, summarize
from mia_select.funnel import Funnel, Selection
from mia_select.metrics import auroc, auroc_interval, paired_difference, wilson
from mia_select.selection import Selector, select
from mia_select.settings import Calibrate, SelectSettings, Thresholds
from mia_select.stage import select_pairs

__all__ = [
    "Calibrate",
    "Evaluation",
    "Funnel",
    "Prediction",
    "SelectSettings",
    "Selection",
    "Selector",
    "Thresholds",
    "auroc",
    "auroc_interval",
    "paired_difference",
    "predict",
    "select",
    "select_pairs",
    "summarize",
    "wilson",
]
