"""The ablation: how the report and the terminal put it into words."""

from __future__ import annotations

from mia_select.ablation import REFERENCE
from mia_select.ablation_stage import ArmSummary
from mia_select.comparison import VariantRow


def differs(row: VariantRow) -> bool:
    """Whether the difference to the arm it is compared with has an interval apart from 0."""
    other = row.over_reference
    return other is not None and (other.low > 0 or other.high < 0)


def arm_note(arm: ArmSummary) -> str:
    """What a variant is, and what to know of its numbers."""
    if arm.left_out is not None:
        return f"{arm.title}; left out: {arm.left_out}"
    notes = [arm.title]
    if arm.same_as is not None:
        notes.append(f"the same pairs and training as {arm.same_as}, whose results stand here")
    if arm.compared_with not in (None, REFERENCE):
        notes.append(f"compared with {arm.compared_with}")
    return "; ".join(notes)
