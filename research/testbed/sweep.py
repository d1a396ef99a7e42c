"""Learning rate, beta and gamma of DPO, and of NLL on the chosen answers alone, one at a time, on validation pictures.

Pairs are chosen without the attention rule.

    uv run python research/testbed/sweep.py --pairs 500

Takes the options of experiment.py; writes research/testbed/results/NAME.json: setting -> gains.
"""

from __future__ import annotations

from typing import Any

from experiment import HERE, parser, run, show
from mia_augment.files import write_json

SWEEP: dict[str, str] = {
    "learning_rate=5.0e-05": "nll_only",
    "learning_rate=1.0e-04": "nll_only",
    "learning_rate=2.0e-04": "nll_only",
    "gamma=0.0": "no_attention",
    "gamma=0.1": "no_attention",
    "beta=0.03": "no_attention",
    "beta=0.3": "no_attention",
}
"""Setting of `train` -> the variant beside the whole method (`no_attention` is the same here and costs nothing)."""


def main() -> None:
    options = parser(__doc__)
    options.set_defaults(split="validation", seeds=1, work="sweep")
    args = options.parse_args()
    fixed, found = [*args.set, "select.attention=false"], {}
    for setting, args.variants in SWEEP.items():
        args.set = [*fixed, f"train.{setting}"]
        print(setting, flush=True)
        result = run(args)
        found[setting] = _gains(result)
        show(result)
        write_json(HERE / "results" / f"{args.name}.json", {"settings": result["settings"], "gains": found})


def _gains(result: dict[str, Any]) -> dict[str, dict[str, dict[str, float]]]:
    """Variant -> group -> mean, low and high."""
    gains: dict[str, dict[str, dict[str, float]]] = {}
    for row in result["by_value"]["rows"]:
        gains.setdefault(row["variant"], {})[row["group"]] = row["gain"]
    return gains


if __name__ == "__main__":
    main()
