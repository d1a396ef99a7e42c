"""Settings on the command line: a file of them, `--set KEY=VALUE`, and options of their own for those changed most."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from mia_cli.commands.paths import READ_FILE

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

SET = click.option(
    "--set", "given", multiple=True, metavar="KEY=VALUE",
    help="Set this, whatever the file says: --set score.batch_size=8. Can be repeated.",
)  # fmt: skip


def stage_settings(stage: str) -> Callable[[FunctionT], FunctionT]:
    """The options `--config` and `--set` of a stage's command."""

    def add(function: FunctionT) -> FunctionT:
        config = click.option("--config", type=READ_FILE, help=f"YAML: the settings of `{stage}`, or a whole pipeline.yaml.")
        one = click.option(
            "--set", "given", multiple=True, metavar="KEY=VALUE",
            help=f"Any setting of `{stage}`, as in a pipeline.yaml: --set KEY=VALUE. Can be repeated.",
        )  # fmt: skip
        return config(one(function))

    return add


def configured(kind: Any, config: Path | None, section: str, given: tuple[str, ...], options: Mapping[str, Any]) -> Any:
    """Settings from a YAML file (all of it, or its `section`), then `--set`, then what options of their own give.

    Args:
        kind: the settings.
        config: the file; None: the defaults.
        section: of a whole file; keys of `--set` may begin with it.
        given: ``KEY=VALUE``.
        options: None means: not given. A dotted name leads into settings within settings.
    """
    from mia_cli.config.overrides import assignments, replaced
    from mia_cli.config.schema import build, parse

    values: Any = parse(kind, config, section).model_dump(mode="json", exclude_unset=True) if config else {}
    for keys, value, _ in assignments(given):
        inner = keys[1:] if keys[0] == section and len(keys) > 1 else keys
        values = replaced(values, inner, value)
    for name, value in options.items():
        if value is not None:
            values = replaced(values, tuple(name.split(".")), value)
    return build(kind, {}, values)
