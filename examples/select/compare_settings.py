"""How many preference pairs each setting of the selection gives, and what each rule drops. Needs no model: seconds.

    uv run python examples/select/compare_settings.py scored --out pairs

`scored` is a folder of `mia score`. The pairs of the advised settings are written, and exported for TRL.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mia_augment import PreferencePair, ScoredSample
from mia_augment.storage import read_jsonl
from mia_select import SelectSettings, read_selection, select, select_pairs
from mia_select.export import export_pairs
from mia_select.settings import ADVISED

SETTINGS = {
    "the paper's": SelectSettings(),
    "advised for other models": SelectSettings.model_validate(ADVISED),
    "half of the wrong answers": SelectSettings.model_validate({"calibrate": {"keep": 0.5}, "min_perplexity": None}),
    "every wrong answer": SelectSettings(attention=False, min_perplexity=None),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scored", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()

    scored = list(read_jsonl(options.scored / "scored.jsonl", ScoredSample))
    for name, settings in SETTINGS.items():
        pairs = sum(isinstance(record, PreferencePair) for record in select(scored, settings))
        print(f"{name:26} {pairs:5} pairs of {len(scored)} samples")

    select_pairs(options.scored, options.out, SETTINGS["advised for other models"])
    report = read_selection(options.out)
    print()
    for rule in report.rules:
        if rule.dropped:
            print(f"{rule.rule:16} {rule.entered:5} came in, {rule.dropped:5} dropped")
    print(*report.warnings, sep="\n")
    export_pairs(options.out, "trl", options.out / "trl")
    print(f"-> {options.out}, {options.out / 'trl'}")


if __name__ == "__main__":
    main()
