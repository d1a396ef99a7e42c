"""Rows of a data set on the Hugging Face hub, read as a stream (needs the extra ``mia-augment[hub]`` and a network).

Written ``hf://OWNER/NAME``, with ``@REVISION``, ``/CONFIGURATION`` and ``:SPLIT`` behind it where they are wanted. As a path
the two slashes are one, which is taken too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mia_augment.errors import ConfigError, DataError

HUB_TIMEOUT = 10.0
"""Seconds to wait for the hub's first answer."""
_WRITTEN = re.compile(r"hf:/+(?:datasets/)?([\w.-]+/[\w.-]+)(?:@([\w.-]+))?(?:/([\w.-]+))?(?::([\w.\[\]%:+-]+))?")


class HubSet(NamedTuple):
    """Which rows of which data set."""

    name: str
    """OWNER/NAME"""
    revision: str | None
    configuration: str | None
    split: str
    """``train`` where none is named."""

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        configuration = f"/{self.configuration}" if self.configuration else ""
        return f"hf://{self.name}{revision}{configuration}:{self.split}"


def on_hub(source: Path) -> bool:
    """Whether a source names a data set of the hub rather than a file."""
    return source.parts[:1] == ("hf:",)


def hub_set(source: Path) -> HubSet:
    """What a source names.

    Raises:
        ConfigError: it is written otherwise.
    """
    found = _WRITTEN.fullmatch(source.as_posix())
    if found is None:
        raise ConfigError(
            f"{source}: expected a data set of the hub as hf://OWNER/NAME, with @REVISION, /CONFIGURATION or :SPLIT behind it, "
            "such as hf://liuhaotian/LLaVA-Instruct-150K:train"
        )
    return HubSet(found[1], found[2], found[3], found[4] or "train")


def hub_identity(source: Path) -> str:
    """What tells these rows from others: the name with the commit it stands for now.

    Raises:
        DataError: the hub cannot be reached, or has no such data set.
    """
    wanted = hub_set(source)
    if wanted.revision and re.fullmatch("[0-9a-f]{40}", wanted.revision):
        return str(wanted)
    _need_datasets()
    from huggingface_hub import HfApi

    try:
        commit = HfApi().dataset_info(wanted.name, revision=wanted.revision, timeout=HUB_TIMEOUT).sha
    except Exception as error:  # whatever the transport raises, which depends on the version
        raise _unread(wanted, error) from error
    return f"{wanted} {commit}"


def hub_values(source: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows as plain dicts, pictures as the bytes that the hub has.

    Raises:
        ConfigError: the extra is missing.
        DataError: the hub cannot be reached, or has no such data set, configuration or split.
    """
    wanted = hub_set(source)
    datasets = _need_datasets()
    try:
        rows = datasets.load_dataset(
            wanted.name, wanted.configuration, split=wanted.split, revision=wanted.revision, streaming=True
        )
        yield from rows.decode(False)
    except Exception as error:
        raise _unread(wanted, error) from error


def _need_datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ConfigError("a data set of the hub needs the package datasets: pip install 'mia-augment[hub]'") from error
    return datasets


def _unread(wanted: HubSet, error: Exception) -> DataError:
    first = f"{error}".splitlines()[0] if f"{error}" else type(error).__name__
    return DataError(
        f"{wanted}: cannot be read from the Hugging Face hub: {first}; look at the name, and where there is no network fetch "
        f"it elsewhere (`hf download {wanted.name} --repo-type dataset --local-dir DIR`) and name the folder of its files"
    )
