"""Training and scoring on one GPU beside their peers, in one table: pairs/s, samples/s and peak memory.

Run with --tiny only so far: look twice at its figures. Random weights in the shapes of LLaVA-1.5-7B and Qwen2.5-VL-7B,
bf16, LoRA r=128 on the language model, 1 / 3 / 5 pictures of 576 tokens, answers of 30. Needs torch, transformers, accelerate,
peft; TRL, Liger and ms-swift where they are installed (ms-swift also a real model's folder, `--checkpoint`). What cannot run
here is in the table with the reason.

    python benchmarks/gpu/compare.py [--shapes llava qwen2_5_vl] [--images 1 3 5] [--out FOLDER]
    python benchmarks/gpu/compare.py --tiny        all of it with tiny models on any machine: a dry run without meaning

Training: packed, kv, plain: ours, reference log-probs stored, their
pass shared out over --epochs epochs. concatenated: what TRL computes, without its trainer around it. Each with and without
gradient checkpointing; --batch pairs at a time. Scoring: see scoring_ways.py. FOLDER gets compare.json and compare.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "packages" / name / "src") for name in ("mia-augment", "mia-dpo-train", "mia-attention")]
sys.path.insert(0, str(Path(__file__).parent))

import torch  # noqa: E402
import transformers  # noqa: E402
from clock import attempt, free, matmul_flops  # noqa: E402
from scoring_ways import SCORING_WAYS, score_way  # noqa: E402
from shapes import SHAPES, build  # noqa: E402
from training_ways import TRAINING_WAYS, train_way  # noqa: E402

PEERS = {"training": ("trl_liger", "trl", "concatenated"), "scoring": ("generate",)}
"""What each row is compared with: the first of these that ran."""


def main(given: list[str] | None = None) -> list[dict[str, Any]]:
    arguments = parse(given)
    arguments.flops = matmul_flops(arguments.device)
    rows = []
    for name in arguments.shapes:
        shape = SHAPES[name]
        for checkpointing in [each == "on" for each in arguments.checkpointing]:
            for images in arguments.images:
                for way in [way for way in arguments.ways if way in TRAINING_WAYS]:
                    work = partial(train_way, shape, way, images, checkpointing=checkpointing, arguments=arguments)
                    row = {"shape": name, "work": "training", "images": images, "checkpointing": checkpointing, "way": way}
                    rows.append(shown({**row, **attempt(work, arguments.device)}))
        model = build(shape, tiny=arguments.tiny, device=arguments.device)
        for images in arguments.images:
            for way in [way for way in arguments.ways if way in SCORING_WAYS]:
                found = attempt(partial(score_way, shape, model, way, images, arguments), arguments.device)
                rows.append(shown({"shape": name, "work": "scoring", "images": images, "way": way, **found}))
        del model
        free(arguments.device)
    write(rows, arguments)
    return rows


def parse(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = [*TRAINING_WAYS, *SCORING_WAYS]
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--ways", nargs="+", choices=every, default=every)
    parser.add_argument("--images", type=int, nargs="+", default=[1, 3, 5])
    parser.add_argument("--checkpointing", nargs="+", choices=["off", "on"], default=["off", "on"])
    parser.add_argument("--batch", type=int, default=1, help="pairs in a training batch")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32], help="tried in scoring")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rank", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=32, help="of an answer in scoring")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--offload", action="store_true", help="activations to the machine's memory (ours)")
    parser.add_argument("--checkpoint", type=Path, help="folder of a real model, for ms-swift")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, help="folder for compare.json and compare.md")
    parser.add_argument("--tiny", action="store_true")
    if "--tiny" in (sys.argv if given is None else given):
        parser.set_defaults(steps=1, rank=8, tokens=4, repeats=1, batches=[1, 2])
    arguments = parser.parse_args(given)
    if arguments.device == "cpu" and not arguments.tiny:
        parser.error("no GPU was found; --tiny tries the script on any machine")
    return arguments


def shown(row: dict[str, Any]) -> dict[str, Any]:
    print({key: round(item, 4) if isinstance(item, float) else item for key, item in row.items()}, flush=True)
    return row


def write(rows: list[dict[str, Any]], arguments: argparse.Namespace) -> None:
    machine = torch.cuda.get_device_name() if arguments.device.startswith("cuda") else "CPU"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    text = f"{machine}, {versions}; bf16 matrix product {arguments.flops / 1e12:.1f} TFLOP/s; {arguments.batch} pair(s) a batch"
    text += " (tiny models: a dry run)\n" if arguments.tiny else "\n"
    text += "\n".join(["", *table(rows)]) + "\n"
    print(f"\n{text}")
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "compare.md").write_text(text, encoding="utf-8")
        content = {"machine": machine, "versions": versions, "tiny": arguments.tiny, "rows": rows}
        (arguments.out / "compare.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def table(rows: list[dict[str, Any]]) -> list[str]:
    """All rows as Markdown, each with its ratio to its peer."""
    lines = [
        "| model | work | images | checkpointing | way | per second | GiB | x of FLOP floor | x peer's speed | x peer's GiB |"
    ]
    lines.append("|---" * 10 + "|")
    for row in rows:
        switch = {True: "on", False: "off"}.get(row.get("checkpointing"), "")
        head = f"| {row['shape']} | {row['work']} | {row['images']} | {switch} | {row['way']} |"
        if "per_second" not in row:
            lines.append(f"{head} {row['left_out'].replace('|', '/').splitlines()[0]} | | | | |")
            continue
        peer = peer_of(row, rows)
        speed = f"{row['per_second'] / peer['per_second']:.2f}"
        memory = f"{row['peak_gib'] / peer['peak_gib']:.2f}" if row.get("peak_gib") and peer.get("peak_gib") else ""
        peak = f"{row['peak_gib']:.1f}" if row.get("peak_gib") else ""
        floor = f"{row['of_floor']:.2f}" if "of_floor" in row else ""
        lines.append(f"{head} {row['per_second']:.2f} | {peak} | {floor} | {speed} | {memory} |")
    return lines


def peer_of(row: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The row that this one is compared with: of the same work, and the first of its peers that ran; else itself."""
    same = ("shape", "work", "images", "checkpointing")
    beside = [other for other in rows if "per_second" in other and all(other.get(key) == row.get(key) for key in same)]
    ran = {other["way"]: other for other in beside}
    return next((ran[way] for way in PEERS[row["work"]] if way in ran), row)


if __name__ == "__main__":
    main()
