"""Whether a stage's folder still holds what its manifest says.

A copy that broke off may cut a JSONL file at the end of a line, where nothing else shows it.
"""

from __future__ import annotations

from pathlib import Path

from mia_augment.errors import DataError
from mia_augment.storage.files import MANIFEST, read_manifest

COUNTED: dict[str, dict[str, tuple[str, ...]]] = {
    "augment": {"samples.jsonl": ("samples",)},
    "import": {"pairs.jsonl": ("pairs",)},
    "score": {"scored.jsonl": ("scored",), "skipped.jsonl": ("skipped",)},
    "select": {"pairs.jsonl": ("pairs",)},
    "attention": {"maps.jsonl": ("maps",)},
    "evaluate": {"predictions.jsonl": ("samples", "skipped")},
}
"""Stage -> file -> the manifest's count of its records: the first of these, less the others."""


def what_is_missing(folder: Path) -> str | None:
    """The first file that holds another number of records than the folder's manifest counts, in words; None: all is there.

    None too without a manifest, and for counts that the manifest does not have.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        return None
    if manifest.stage == "train" and not any((folder / name).is_dir() for name in ("adapter", "model")):
        return f"{folder}: expected adapter/ or model/, there is neither"
    for name, (whole, *less) in COUNTED.get(manifest.stage, {}).items():
        if whole not in manifest.counts:
            continue
        expected = manifest.counts[whole] - sum(manifest.counts.get(count, 0) for count in less)
        found = _records(folder / name)
        if found != expected:
            have = "there is no such file" if found is None else f"found {found}"
            return f"{folder / name}: expected {expected} records, as {MANIFEST} counts them, {have}"
    return None


def check_whole(folder: Path) -> None:
    """Raise DataError if a file of a finished stage was cut, added to or taken away."""
    missing = what_is_missing(folder)
    if missing is not None:
        raise DataError(
            f"{missing}; run its stage again, which makes it anew, or copy it again; if the file was changed on purpose, "
            f"change the count in {MANIFEST} as well"
        )


def _records(path: Path) -> int | None:
    """Lines of a JSONL file that are not blank; None: there is no file."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return sum(not line.isspace() for line in file)
