"""Selection: scored samples per second on one core, and memory as the file grows; beside the script one would write first.

The peer reads the file with `json`, keeps everything in lists, and compares texts with `difflib`. Both read and write the same
kind of files. Each measurement runs in a process of its own.

    uv run python benchmarks/bench_select.py [--samples 100000] [--memory 10000 100000 1000000] [--repeats 3]
"""

from __future__ import annotations

import argparse
import difflib
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

VOCABULARY = "a red blue small large dog cat car table stands lies under beside the of in front window street people two three"
WORDS = VOCABULARY.split()
PAPER = {"sequence": {2: 0.8, 3: 0.7, 4: 0.6, 5: 0.6}, "grid": {2: 0.7, 3: 0.6, 4: 0.5, 6: 0.4, 9: 0.3}, "pic_in_pic": {2: 0.8}}
SETTINGS: dict[str, dict[str, Any]] = {
    "table": {},
    "calibrate auto": {"calibrate": "auto"},
    "calibrate + balance": {"calibrate": {"keep": 0.5}, "balance": ["parts", "target"]},
}


def make_file(path: Path, count: int) -> None:
    """Scored samples as the pipeline writes them, about 1.3 kB each: half right, answers of 3 to 40 words."""
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            file.write(json.dumps(sample(number, rng)) + "\n")


def sample(number: int, rng: random.Random) -> dict[str, Any]:
    format_ = rng.choices(list(PAPER), [5, 3, 2])[0]
    parts = rng.choice(list(PAPER[format_]))
    target = rng.randrange(parts)
    several = format_ == "sequence"
    answer = " ".join(rng.choices(WORDS, k=rng.randint(3, 40))).capitalize() + "."
    words = answer.split()
    words[rng.randrange(len(words))] = rng.choice(WORDS)
    paths = [f"coco/train2017/{rng.randrange(10**6):012}.jpg" for _ in range(parts)]
    images = paths if several else [f"images/{number:08}.png"]
    mass = [rng.random() for _ in range(parts)]
    question = " ".join(rng.choices(WORDS, k=10)) + "?"
    return {
        "id": f"{number:08}-{format_}",
        "format": format_,
        "images": images,
        "prompt": "".join(f"Image{i + 1}:<image>\n" for i in range(len(images))) + f"In Image{target + 1}, {question}",
        "answer": answer,
        "regions": [
            {
                "image": i if several else 0,
                "box": None if several else [488 * i, 50, 488 * i + 448, 386],
                "label": f"Image{i + 1}",
            }
            for i in range(parts)
        ],
        "target": target,
        "source": {"ids": [str(number)] * parts, "paths": paths, "question": question, "answers": [None] * parts},
        "response": answer if rng.random() < 0.5 else " ".join(words),
        "response_tokens": len(words) + 1,
        "mean_logp": -0.3,
        "perplexity": 1 + rng.random(),
        "attention": {"layer": 16, "rows": "generated", "region_mass": mass, "image_mass": mass, "ratio": rng.random()},
    }


def peer(source: Path, out: Path) -> int:
    """Everything in memory, `difflib` for the distance."""
    samples = [json.loads(line) for line in source.open(encoding="utf-8")]
    pairs, dropped = [], []
    for s in samples:
        limit = PAPER[s["format"]][len(s["regions"])]
        ratio = s["attention"]["ratio"]
        kept = ratio <= limit if s["format"] == "sequence" else ratio < limit
        lengths = sorted([len(s["answer"]), len(s["response"])])
        if (
            kept
            and s["answer"].lower().strip(" .") != s["response"].lower().strip(" .")
            and s["perplexity"] > 1.1
            and len(s["answer"]) < 512
            and lengths[1] / max(lengths[0], 1) <= 4
            and 1 - difflib.SequenceMatcher(None, s["answer"], s["response"]).ratio() >= 0.02
        ):
            pairs.append({**s, "chosen": s["answer"], "rejected": s["response"]})
        else:
            dropped.append({"id": s["id"]})
    for name, rows in (("pairs.jsonl", pairs), ("dropped.jsonl", dropped)):
        (out / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return len(pairs)


def ours(source: Path, out: Path, settings: dict[str, Any]) -> int:
    from mia_select import SelectSettings, select_pairs

    return select_pairs(source.parent, out, SelectSettings.model_validate(settings)).counts["pairs"]


def measure(who: str, source: Path) -> None:
    """Run once in this process and print seconds of CPU, peak memory above the imports, and the number of pairs."""
    import mia_select  # noqa: F401

    before = resource.getrusage(resource.RUSAGE_SELF)
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        pairs = peer(source, Path(folder)) if who == "peer" else ours(source, Path(folder), SETTINGS[who])
        seconds = time.process_time() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    print(json.dumps({"seconds": seconds, "mb": (after.ru_maxrss - before.ru_maxrss) / 1024, "pairs": pairs}))


def run(who: str, source: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", who, "--source", str(source)]
    result: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--memory", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--measure", choices=[*SETTINGS, "peer"])
    parser.add_argument("--source", type=Path)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure, arguments.source)
        return
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "scored.jsonl"
        make_file(source, arguments.samples)
        size = source.stat().st_size / arguments.samples
        print(f"{arguments.samples} scored samples of {size:.0f} bytes; CPU seconds, median of {arguments.repeats}")
        base = None
        for who in ["peer", *SETTINGS]:
            results = [run(who, source) for _ in range(arguments.repeats)]
            seconds = statistics.median(r["seconds"] for r in results)
            base = base or seconds
            rate, memory = arguments.samples / seconds, max(r["mb"] for r in results)
            print(
                f"{who:20} {rate:9.0f} samples/s  {base / seconds:5.2f} x peer  +{memory:6.1f} MB  {results[0]['pairs']} pairs"
            )
        for count in arguments.memory:
            make_file(source, count)
            row = "  ".join(f"{who}: +{run(who, source)['mb']:.1f} MB" for who in ["peer", *SETTINGS])
            print(f"memory at {count:8} samples   {row}")


if __name__ == "__main__":
    main()
