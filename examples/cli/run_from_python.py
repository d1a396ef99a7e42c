"""A whole pipeline from Python: the same stages, the same files, the same resuming as `mia run`.

    uv run python examples/cli/run_from_python.py --work work

Draws a few pictures and runs everything with the embedded model; for your own, `mia init` writes a pipeline.yaml.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mia_cli.config.commented_yaml import commented_yaml
from mia_cli.config.schema import load_config
from mia_cli.drawn.drawn_data import ROWS_FILE, write_rows
from mia_cli.pipeline import run_pipeline
from mia_cli.terminal.display import Display
from mia_cli.terminal.result_tables import results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=24)
    options = parser.parse_args()

    write_rows(options.work / "data", "train", options.pictures, questions="one")
    settings = {
        "data": {"source": f"data/{ROWS_FILE}"},
        "augment": {"formats": ["sequence"], "sequence": {"counts": [2, 3]}},
        "score": {"max_new_tokens": 12, "batch_size": 16},
        "select": {"attention": False, "min_perplexity": None},
        "train": {"max_steps": 2, "gradient_checkpointing": False, "learning_rate": 5e-4},
        "evaluate": {"holdout": 0.3, "per_bucket": 5, "max_new_tokens": 12, "batch_size": 16},
        "report": {"attention": 4},
    }
    path = options.work / "pipeline.yaml"
    path.write_text(commented_yaml(settings), encoding="utf-8")

    config = load_config(path)
    runner = run_pipeline(config, Display())
    print("made in this call:", ", ".join(runner.made) or "nothing, all was there")
    for row in results(config.run_dir)["evaluation"]["rows"]:
        before, after = (100 * row[when]["rate"] for when in ("before", "after"))
        print(f"{row['name']:14} {before:5.1f} % -> {after:5.1f} % of {row['before']['n']}")
    print(config.run_dir / "report.html")


if __name__ == "__main__":
    main()
