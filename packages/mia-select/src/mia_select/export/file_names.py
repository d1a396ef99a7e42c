"""Where an export lies and what it adds, known to both directions: writing and reading."""

from __future__ import annotations

EXTRA = "mia"
"""Column with what other trainers have no place for, as a JSON string."""

FILES = {
    "trl": "train.jsonl",
    "llama-factory": "mia_pairs.json",
    "ms-swift": "train.jsonl",
    "mia-dpo": "mia_dpo.json",
    "parquet": "train.parquet",
}
"""Format -> name of its file in an export folder; `.jsonl` has a row a line, `.json` is one array."""
