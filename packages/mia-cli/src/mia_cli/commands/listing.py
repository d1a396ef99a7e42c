"""Options whose values are the rows of a table of the library, which is imported when they are asked for, not before."""

from __future__ import annotations

import importlib
from typing import Any

import click


def rows_of(table: str) -> list[str]:
    """Names of the rows of a table: ``mia_augment:FORMATS``."""
    package, name = table.split(":")
    return list(getattr(importlib.import_module(package), name))


class RowChoice(click.Choice[str]):
    """One of a table's names."""

    def __init__(self, table: str) -> None:
        self.table, self.case_sensitive = table, True

    @property
    def choices(self) -> list[str]:  # type: ignore[override]
        return rows_of(self.table)


class Listing(click.Option):
    """`{names}` in the help stands for a table's names. The table is imported when this help is shown, not before."""

    def __init__(self, *declarations: Any, table: str, **options: Any) -> None:
        """`table`: package and name, e.g. ``mia_augment:FORMATS``."""
        super().__init__(*declarations, **options)
        self.table = table

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        self.help = (self.help or "").format(names=", ".join(rows_of(self.table)))
        return super().get_help_record(ctx)
