"""One experiment of the test-bed: variants of the method on one model, several trainings each, equal pairs and steps.

    uv run python research/testbed/experiment.py embedded-own --model embedded --style own --seeds 3

Runs `mia ablate` on drawn pictures under research/testbed/work/NAME and writes research/testbed/results/NAME.json: gains on
the held-out questions. Answers are judged by the value they name (`red`), so that one wording is not preferred to another.

Styles of the ground truths: `own` are the model's words ("The color is red."); `other` a longer wording that it knows but
does not use (see train.py --other), as ground truths and answers of real models differ; `mixed` either, by chance, for a
model that uses both (train.py --narrow-other). With `other` no answer equals its ground truth and with `mixed` few right
ones do, so little but the attention rule can tell wrong answers from right ones.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from mia_augment import PreferencePair, ScoredSample
from mia_augment.storage import read_jsonl, write_json, write_jsonl
from mia_cli.config.schema import load_config
from mia_cli.drawn import drawing
from mia_cli.drawn.drawn_data import ROWS_FILE, write_rows
from mia_cli.drawn.quickstart import prepare
from mia_cli.loading.load import SharedModel
from mia_cli.pipeline import stages
from mia_cli.runner import Runner
from mia_cli.terminal.display import Display
from mia_select.evaluation import Prediction, compare, outcomes

sys.path.insert(0, str(Path(__file__).parents[1] / "embedded"))
import data  # research/embedded/data.py

HERE = Path(__file__).parent
VALUES = {value for values in drawing.ATTRIBUTES.values() for value in values}


STYLES = {"own": 0.0, "mixed": 0.5, "other": 1.0}
"""Style -> share of ground truths in the other wording."""


def named(text: str) -> set[str]:
    """Values of attributes that an answer names; every value belongs to one attribute only."""
    return {word.strip(".,?:\n") for word in text.split()} & VALUES


def reword(text: str, key: str, share: float) -> str:
    """An answer in the other wording, by chance (`share`), if it names one value; what it says stays."""
    found = named(text)
    if len(found) != 1 or random.Random(key).random() >= share:
        return text
    (value,) = found
    attribute = next(name for name, values in drawing.ATTRIBUTES.items() if value in values)
    return data.OTHER_WORDING[attribute].format(value)


def reworded_rows(folder: Path, share: float) -> Path:
    """The rows of a folder with this share of their answers in the other wording."""
    rows = json.loads((folder / ROWS_FILE).read_text())
    for row in rows:
        turn = row["conversations"][1]
        turn["value"] = reword(turn["value"], row["id"], share)
    target = folder / f"rows-{share}.json"
    write_json(target, rows)
    return target


def score_and_reword(file: Path, share: float) -> None:
    """Score, and put this share of the model's answers into the other wording: greedy answers all have one."""
    config = load_config(file)
    runner = Runner(config.run_dir, Display())
    for stage in stages(config, SharedModel(config.model)):
        runner.run(stage)
        if stage.name == "score":
            break
    scored = config.run_dir / "score" / "scored.jsonl"
    samples = list(read_jsonl(scored, ScoredSample))
    write_jsonl(
        scored, [s.model_copy(update={"response": reword(s.response, f"{s.id} response", share)}) for s in samples]
    )  # again, it changes nothing


def pipeline(folder: Path, args: argparse.Namespace) -> Path:
    """The quickstart's pipeline.yaml by the paper's recipe, with this experiment's settings."""
    file = prepare(
        folder,
        Display(),
        pictures=args.pictures,
        test_pictures=300,
        per_bucket=args.per_bucket,
        seed=args.seed,
        model=args.model,
        recipe="paper",
    )
    settings = yaml.safe_load(file.read_text())
    if args.split != "test":
        write_rows(folder / "data" / args.split, args.split, 300, seed=args.seed)
        settings["evaluate"]["source"] = f"data/{args.split}/{ROWS_FILE}"
    settings["report"] = {**settings.get("report", {}), "pairs": 0}
    settings["score"] = {**settings["score"], "layer": args.layer, "rows": args.rows}
    if args.style != "own":
        for part in ("data", "evaluate"):
            rows = folder / settings[part]["source"]
            settings[part]["source"] = str(reworded_rows(rows.parent, STYLES[args.style]))
        settings["score"]["max_new_tokens"] = settings["evaluate"]["max_new_tokens"] = 24
    for change in args.set:
        name, value = change.split("=", 1)
        section, key = name.split(".")
        settings[section][key] = yaml.safe_load(value)
    target = folder / "experiment.yaml"
    target.write_text(yaml.safe_dump(settings, sort_keys=False))
    return target


def judged(prediction: Prediction) -> Prediction:
    """Right is what names the ground truth's value and no other."""
    truth = named(prediction.answer)
    after = None if prediction.after is None else named(prediction.after) == truth
    return prediction.model_copy(update={"correct_before": named(prediction.before) == truth, "correct_after": after})


def answered(folder: Path, seeds: int) -> dict[str, dict[int, list[Prediction]]]:
    """Variant -> seed -> the answers of an experiment, judged by value."""
    predictions: dict[str, dict[int, list[Prediction]]] = {}
    for seed in range(seeds):
        drawn = folder / f"run/ablate/seed-{seed}"
        for arm in json.loads((drawn / "arms.json").read_text()):
            path = drawn / (arm["same_as"] or arm["variant"]) / "evaluate/predictions.jsonl"
            if arm["left_out"] is None:
                predictions.setdefault(arm["variant"], {})[seed] = [judged(p) for p in read_jsonl(path, Prediction)]
    return predictions


def parser(description: str | None = __doc__) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--style", choices=STYLES, default="own")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pairs", type=int)
    parser.add_argument("--variants", default="")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    parser.add_argument("--pictures", type=int, default=800)
    parser.add_argument("--per-bucket", type=int, default=300)
    parser.add_argument("--layer", type=yaml.safe_load, default=3)
    parser.add_argument("--rows", default="generated")
    parser.add_argument("--seed", type=int, default=0, help="of the pictures; test pictures with another one are fresh")
    parser.add_argument("--reword-responses", action="store_true", help="the model's answers too, as if they were sampled")
    parser.add_argument("--split", choices=["validation", "test"], default="test", help="of the held-out pictures")
    parser.add_argument("--work", help="name of a folder under work/ to share with other experiments on the same samples")
    parser.add_argument("--beside", help="an experiment made before on the same questions, for one table over both")
    parser.add_argument("--set", nargs="*", default=[], metavar="train.beta=0.2", help="other settings of the pipeline.yaml")
    return parser


def wrong_shares(folder: Path, seeds: int) -> dict[str, list[float]]:
    """Variant -> per seed the share of its pairs whose rejected answer names another value than the chosen one."""
    shares: dict[str, list[float]] = {}
    for seed in range(seeds):
        for path in sorted((folder / f"run/ablate/seed-{seed}").glob("*/pairs.jsonl")):
            wrong = [named(pair.rejected) != named(pair.chosen) for pair in read_jsonl(path, PreferencePair)]
            shares.setdefault(path.parent.name, []).append(round(sum(wrong) / len(wrong), 3))
    return shares


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The table of one experiment, by value and by match, with its settings."""
    folder = HERE / "work" / (args.work or args.name)
    file = pipeline(folder, args)
    if args.reword_responses:
        score_and_reword(file, STYLES[args.style])
    command = ["mia", "ablate", str(file), "--seeds", str(args.seeds), "--jobs", str(args.jobs), "--json"]
    command += ["--pairs", str(args.pairs)] if args.pairs else []
    command += ["--variants", args.variants] if args.variants else []
    started = time.time()
    table = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
    predictions = answered(folder, args.seeds)
    if args.beside:
        for variant, runs in answered(HERE / "work" / args.beside, args.seeds).items():
            predictions[f"{args.beside}: {variant}"] = runs
    controls = {arm["variant"]: arm["compared_with"] for arm in table["arms"] if arm["compared_with"] in predictions}
    by_value = compare(outcomes(predictions), controls)
    return {
        "settings": vars(args) | {"model": Path(args.model).name},
        "minutes": round((time.time() - started) / 60, 1),
        "by_value": by_value.model_dump(mode="json"),
        "by_match": table,
        "rejected_wrong": wrong_shares(folder, args.seeds),
        "unanswered": {
            name: [sum(not named(p.after or "") for p in found) for found in seeds.values()]
            for name, seeds in predictions.items()
        },
    }


def show(result: dict[str, Any]) -> None:
    for row in result["by_value"]["rows"]:
        gain = {name: 100 * value for name, value in row["gain"].items()}
        print(
            f"{row['variant']:22} {row['group']:12} {gain['mean']:+6.1f} [{gain['low']:+.1f}, {gain['high']:+.1f}]", flush=True
        )


def main() -> None:
    args = parser().parse_args()
    result = run(args)
    write_json(HERE / "results" / f"{args.name}.json", result)
    show(result)


if __name__ == "__main__":
    main()
