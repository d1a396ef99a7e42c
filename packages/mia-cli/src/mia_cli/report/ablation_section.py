"""The ablation: how the report and the terminal put it into words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mia_augment import FORMATS, SINGLE
from mia_augment.storage import read_record
from mia_select.ablation import REFERENCE, Ablation, ArmSummary
from mia_select.evaluation import MULTI, Effect, VariantRow

from mia_cli.layout import ABLATION, RESULT
from mia_cli.report import svg as figures

GROUPS = {MULTI: "several images", **{name: row.plural for name, row in FORMATS.items()}}
"""Columns in their order."""


def ablation_content(run_dir: Path) -> dict[str, Any]:
    """What the page shows of an ablation; nothing where there is none.

    Raises:
        DataError: its file is not what `mia ablate` writes.
    """
    path = run_dir / ABLATION / RESULT
    if not path.is_file():
        return {"ablation": None}
    return {"ablation": _content(read_record(path, Ablation, "run `mia ablate` again"))}


def differs(row: VariantRow) -> bool:
    """Whether the difference to the arm it is compared with has an interval apart from 0."""
    other = row.over_reference
    return other is not None and (other.low > 0 or other.high < 0)


def arm_note(arm: ArmSummary, titles: Mapping[str, str]) -> str:
    """What a variant is, and what to know of its numbers; `titles` says how to call the others."""
    if arm.left_out is not None:
        return f"{arm.title}: left out: {arm.left_out}"
    notes = []
    if arm.same_as is not None:
        notes.append(f"the same pairs and training as {titles[arm.same_as]!r}, whose results stand here")
    if arm.compared_with not in (None, REFERENCE):
        notes.append(f"compared with {titles[arm.compared_with]!r}")
    return ": ".join([arm.title, "; ".join(notes)] if notes else [arm.title])


def titles_of(arms: Iterable[ArmSummary]) -> dict[str, str]:
    """Variant -> title."""
    return {arm.variant: arm.title for arm in arms}


def _content(found: Ablation) -> dict[str, Any]:
    table, titles = found.comparison, titles_of(found.arms)
    groups = [group for group in GROUPS if group in table.groups]
    compared = {row.variant for row in table.rows}
    arms = [arm for arm in found.arms if arm.variant in compared]
    rows = {arm.variant: [table.row(arm.variant, group) for group in groups] for arm in arms}
    shown = [rows[arm.variant][0].over_reference for arm in arms]
    bound = 100 * max((abs(edge) for effect in shown if effect for edge in (effect.low, effect.high)), default=0.01)
    return {
        "columns": [GROUPS[group] for group in groups],
        "flattered": found.flattered,
        "against": GROUPS[groups[0]],
        "seeds": table.seeds,
        "questions": sum(rows[arms[0].variant][groups.index(group)].n for group in groups if group in (MULTI, SINGLE)),
        "rows": [
            {
                "label": arm.title,
                "pairs": arm.pairs,
                "reference": arm.variant == table.reference,
                "cells": [_cell(row) for row in rows[arm.variant]],
                "figure": _figure(rows[arm.variant][0].over_reference, bound),
            }
            for arm in arms
        ],
        "notes": [note for arm in found.arms if (note := arm_note(arm, titles)) != arm.title],
        "per_seed": {
            "columns": ["variant", *(GROUPS[group] for group in groups)],
            "rows": [[arm.title, *(_spread(row.per_seed) for row in rows[arm.variant])] for arm in arms],
        },
    }


def _cell(row: VariantRow) -> dict[str, str]:
    """In points, coloured where it differs from what it is compared with."""
    gain, other = row.gain, row.over_reference
    css = "" if other is None or not differs(row) else "up" if other.low > 0 else "down"
    return {
        "value": f"{100 * gain.mean:+.1f}{'*' if css else ''}",
        "interval": f"[{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]",
        "direction": css,
    }


def _figure(effect: Effect | None, bound: float) -> Any:
    return figures.interval(100 * effect.mean, 100 * effect.low, 100 * effect.high, bound) if effect else ""


def _spread(values: Sequence[float]) -> str:
    return ", ".join(f"{100 * value:+.1f}" for value in values)
