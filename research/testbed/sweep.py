"""Settings of the training, one group after another, on the same pairs and validation pictures.

    uv run python research/testbed/sweep.py sweep --pairs 500 --try learning_rate=1.0e-04 "gamma=0.0 beta=0.3"

Pairs are chosen without the attention rule; with `--variants nll_only` each group is also trained by NLL on the chosen
answers alone. Takes the options of experiment.py too; adds to research/testbed/results/NAME.json: settings -> gains.
"""

from __future__ import annotations

import json
from typing import Any

from experiment import HERE, parser, run, show
from mia_augment.storage import write_json


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--try", dest="groups", nargs="+", required=True, metavar='"gamma=0.0 beta=0.3"')
    options.set_defaults(split="validation", seeds=1, variants="no_attention", jobs=1)
    args = options.parse_args()
    args.work = args.work or args.name
    file = HERE / "results" / f"{args.name}.json"
    found = json.loads(file.read_text())["gains"] if file.is_file() else {}
    fixed, groups = [*args.set, "select.attention=false"], vars(args).pop("groups")
    for group in groups:
        args.set = [*fixed, *(f"train.{setting}" for setting in group.split())]
        print(group, flush=True)
        result = run(args)
        found[group] = _gains(result)
        show(result)
        write_json(file, {"settings": {**result["settings"], "set": fixed}, "gains": found})


def _gains(result: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Variant -> group -> mean, low and high."""
    gains: dict[str, dict[str, dict[str, float]]] = {}
    for row in result["by_value"]["rows"]:
        gains.setdefault(row["variant"], {})[row["group"]] = row["gain"]
    return gains


if __name__ == "__main__":
    main()
