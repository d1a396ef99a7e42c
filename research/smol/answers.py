"""Rows for the product, and its answers judged by the value they name.

    python research/smol/answers.py rows FOLDER --split train --pictures 600     # LLaVA-format rows over fresh pictures
    python research/smol/answers.py measure MODEL FOLDER/rows.json OUT           # accuracy by the value named, every format
    python research/smol/answers.py pairs RUN FOLDER/facts.json                  # what its pairs are, what its ratio tells
    python research/smol/answers.py judge RUN/evaluate ...                       # accuracy by the value named, before and after

A row's ground truth is one of several wordings of the right answer, so that texts be equal says little:
`right` of scenes.py is asked instead.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import scenes
from mia_attention import load_model, respond
from mia_augment import AugmentSettings, PreferencePair, Sample, ScoredSample, augment_dataset, same_answer
from mia_augment.images import picture_opener
from mia_augment.statistics import grouped_auroc_interval, scored_groups
from mia_augment.storage import read_jsonl
from mia_select import paired_difference, wilson
from mia_select.evaluation import Prediction

KINDS = ("name", "left", "right", "beside", "background", "count", "color")


def write_rows(folder: Path, split: scenes.Split, pictures: int, seed: int, kinds: Sequence[str] = KINDS) -> Path:
    """One picture and question a row, kinds in turn; `facts.json` says by id what was asked and what is right."""
    rng = random.Random(f"{split}/{seed}")
    folder.mkdir(parents=True, exist_ok=True)
    rows, facts = [], {}
    while len(rows) < pictures:
        kind = kinds[len(rows) % len(kinds)]
        picture = scenes.paint(scenes.draw_scene(rng, split), rng)
        asked = [question for question in scenes.questions(picture.scene, rng) if question.kind == kind]
        if not asked:
            continue
        name = f"{split}-{seed}-{len(rows):05}"
        picture.image.save(folder / f"{name}.png")
        question, answer = asked[0], rng.choice(asked[0].answers)
        turns = [("human", f"<image>\n{question.text}"), ("gpt", answer)]
        rows.append(
            {"id": name, "image": f"{name}.png", "conversations": [{"from": who, "value": text} for who, text in turns]}
        )
        facts[name] = {"kind": kind, "value": question.value}
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "facts.json").write_text(json.dumps(facts))
    return folder / "rows.json"


Judged = tuple[str, int, str, bool, bool | None]
"""Format, number of pictures, kind of question, right before and after (None: not asked)."""


def judge(
    samples: Iterable[Sample], answers: dict[str, tuple[str, str | None]], facts: dict[str, dict[str, str]]
) -> list[Judged]:
    """Each answered sample judged by the value its answers name."""
    judged = []
    for sample in samples:
        if sample.id in answers:
            fact = facts[sample.source.ids[sample.target]]
            right = [None if a is None else scenes.right(fact["kind"], fact["value"], a) for a in answers[sample.id]]
            number = 1 if sample.format == "single" else sample.parts
            judged.append((sample.format, number, fact["kind"], bool(right[0]), right[1]))
    return judged


def judge_run(evaluation: Path, samples: Path, facts: dict[str, dict[str, str]]) -> list[Judged]:
    """The predictions of `mia evaluate` or `mia run` in a folder."""
    predictions = {p.id: (p.before, p.after) for p in read_jsonl(evaluation / "predictions.jsonl", Prediction)}
    return judge(read_jsonl(samples, Sample), predictions, facts)


def table(judged: list[Judged]) -> str:
    """Accuracy per format and number with 95 % Wilson intervals, and the paired difference where there are two answers."""
    groups: dict[str, list[Judged]] = defaultdict(list)
    for one in judged:
        name = one[0] if one[0] in ("single", "pic_in_pic") else f"{one[0]} {one[1]}"
        for group in {name, one[0] if one[0] == "single" else f"{one[0]}, all"} | (
            {f"single: {one[2]}"} if one[0] == "single" else set()
        ):
            groups[group].append(one)
    lines = ["| questions | n | before | after | difference [95 %] |", "|---|---|---|---|---|"]
    for name in sorted(groups):
        before = [one[3] for one in groups[name]]
        after = [one[4] for one in groups[name]]
        cells = [name, str(len(before)), _share(before), "", ""]
        if None not in after:
            found = paired_difference(before, after)
            cells[3:] = [_share(after), f"{100 * found.mean:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _share(right: Sequence[bool | None]) -> str:
    low, high = wilson(sum(map(bool, right)), len(right))
    return f"{100 * sum(map(bool, right)) / len(right):.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


FORMATS = {
    "formats": ["single", "sequence", "grid", "pic_in_pic"],
    "sequence": {"counts": [2, 3, 4, 5]},
    "grid": {"counts": [2, 3, 4]},
}
CELL = {"cell": 120, "gap": 24, "label": 20}


def measure(model: Any, processor: Any, rows: Path, per_bucket: int, folder: Path, formats: Sequence[str]) -> list[Judged]:
    """The model's answers to samples of every format and number, composed of rows; kept in `answers.json` of the folder."""
    settings = AugmentSettings.model_validate(
        {**FORMATS, "grid": {**FORMATS["grid"], **CELL}, "formats": list(formats), "per_bucket": per_bucket}
    )
    augment_dataset(rows, rows.parent, folder, settings, seed=0)
    samples = list(read_jsonl(folder / "samples.jsonl", Sample))
    given = respond(samples, model, processor, open_image=picture_opener(folder), batch_size=16, max_new_tokens=24)
    answers = {sample.id: (answer.text, None) for sample, answer in zip(samples, given, strict=True)}
    (folder / "answers.json").write_text(json.dumps({name: text for name, (text, _) in answers.items()}))
    return judge(samples, answers, json.loads((rows.parent / "facts.json").read_text()))


def pairs_table(run: Path, facts: dict[str, dict[str, str]]) -> str:
    """By the value named: how many of a run's answers are right, and of its pairs' chosen and rejected answers."""
    samples = {sample.id: sample for sample in read_jsonl(run / "score" / "scored.jsonl", ScoredSample)}
    pairs = list(read_jsonl(run / "select" / "pairs.jsonl", PreferencePair))
    asked = {name: facts[sample.source.ids[sample.target]] for name, sample in samples.items()}

    def share(answers: list[tuple[str, str | None]]) -> str:
        return _share([scenes.right(asked[name]["kind"], asked[name]["value"], text) for name, text in answers if text])

    equal = [(name, s.response) for name, s in samples.items() if same_answer(s.response, s.answer)]
    lines = ["| answers | n | right |", "|---|---|---|"]
    groups = {
        "to the samples": [(name, s.response) for name, s in samples.items()],
        "about the target alone": [(name, s.own_answer) for name, s in samples.items() if s.own_answer],
        "equal to the ground truth": equal,
        "chosen": [(pair.id, pair.chosen) for pair in pairs],
        "rejected": [(pair.id, pair.rejected) for pair in pairs],
    }
    lines += [f"| {name} | {len(found)} | {share(found)} |" for name, found in groups.items() if found]
    return "\n".join(lines)


def auroc_table(run: Path, facts: dict[str, dict[str, str]]) -> str:
    """How well a low ratio tells the answers that are wrong by value, compared within each format and number."""
    samples = list(read_jsonl(run / "score" / "scored.jsonl", ScoredSample))
    asked = [facts[sample.source.ids[sample.target]] for sample in samples]
    wrong = [not scenes.right(fact["kind"], fact["value"], s.response) for fact, s in zip(asked, samples, strict=True)]
    parts = {"all": range(len(samples))}
    parts |= {f.format: [i for i, s in enumerate(samples) if s.format == f.format] for f in samples}
    parts |= {fact["kind"]: [i for i, other in enumerate(asked) if other["kind"] == fact["kind"]] for fact in asked}
    lines = [
        f"| {samples[0].attention.layer}, {samples[0].attention.rows} rows | n | wrong | AUROC [95 %] |",
        "|---|---|---|---|",
    ]
    for name, part in parts.items():
        low = [None if samples[i].attention.ratio is None else -samples[i].attention.ratio for i in part]
        groups = scored_groups(low, [wrong[i] for i in part], [(samples[i].format, samples[i].parts) for i in part])
        found = grouped_auroc_interval(groups)
        told = "" if found is None else f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"
        lines.append(f"| {name} | {len(part)} | {sum(wrong[i] for i in part)} | {told} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    rows = commands.add_parser("rows")
    rows.add_argument("folder", type=Path)
    rows.add_argument("--split", choices=["train", "validation", "test"], default="train")
    rows.add_argument("--pictures", type=int, default=600)
    rows.add_argument("--seed", type=int, default=0)
    rows.add_argument("--kinds", nargs="+", default=KINDS)
    judged = commands.add_parser("judge")
    judged.add_argument("evaluation", type=Path, help="folder with predictions.jsonl")
    judged.add_argument("samples", type=Path, help="the samples.jsonl that was asked")
    judged.add_argument("facts", type=Path, help="facts.json beside the rows that the samples were made of")
    paired = commands.add_parser("pairs")
    paired.add_argument("run", type=Path)
    paired.add_argument("facts", type=Path)
    asked = commands.add_parser("measure")
    asked.add_argument("model")
    asked.add_argument("rows", type=Path)
    asked.add_argument("folder", type=Path, help="where samples and answers go")
    asked.add_argument("--per-bucket", type=int, default=50)
    asked.add_argument("--formats", nargs="+", default=FORMATS["formats"])
    args = parser.parse_args()
    if args.command == "measure":
        model, processor = load_model(args.model, "bfloat16")
        print(table(measure(model, processor, args.rows, args.per_bucket, args.folder, args.formats)))
    elif args.command == "pairs":
        facts = json.loads(args.facts.read_text())
        print(pairs_table(args.run, facts), auroc_table(args.run, facts), sep="\n\n")
    elif args.command == "rows":
        print(write_rows(args.folder, args.split, args.pictures, args.seed, args.kinds))
    else:
        print(table(judge_run(args.evaluation, args.samples, json.loads(args.facts.read_text()))))


if __name__ == "__main__":
    main()
