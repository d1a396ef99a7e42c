"""An option whose help lists the rows of a table of the library."""

from __future__ import annotations

import importlib
from typing import Any

import click


class Listing(click.Option):
    """`{names}` in the help stands for a table's names. The table is imported when this help is shown, not before."""

    def __init__(self, *declarations: Any, table: str, **options: Any) -> None:
        """`table`: package and name, e.g. ``mia_augment:FORMATS``."""
        super().__init__(*declarations, **options)
        self.table = table

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        package, name = self.table.split(":")
        names = ", ".join(getattr(importlib.import_module(package), name))
        self.help = (self.help or "").format(names=names)
        return super().get_help_record(ctx)
