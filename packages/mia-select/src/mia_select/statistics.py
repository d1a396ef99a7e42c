"""Numbers with their uncertainty, as evaluation and calibration report them (defined in `mia_augment.statistics`)."""

from mia_augment.statistics import (
    Auroc,
    Difference,
    auroc,
    auroc_interval,
    best_cut,
    mcnemar_exact,
    paired_difference,
    wilson,
)

__all__ = ["Auroc", "Difference", "auroc", "auroc_interval", "best_cut", "mcnemar_exact", "paired_difference", "wilson"]
