"""Augmentation beside a straightforward composition of the same pictures, in the same run.

The peer does for every sample what one would write down first: decode each part wholly, shrink it by Lanczos, paste, draw the
label, save; one process, in memory as far as possible. It gets the samples ready-made (which parts, which order), so reading
rows, checking pictures, drawing companions and writing records are the product's extra work. Both save JPEG alike.

Peer, one worker and two workers take turns, `--repeat` times; the medians are compared.

    uv run python benchmarks/bench_augment.py [--rows 600] [--repeat 3] [--sequence-rows 60000] [--memory-rows 10000,100000]

What many rows cost, a row: CPU seconds of one core, bytes, memory (docs/scale.md); alone, without the comparison above:

    uv run python benchmarks/bench_augment.py --scale-rows 20000
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mia_augment import AugmentSettings, augment_dataset
from mia_augment.records import Sample
from mia_augment.storage.files import read_jsonl
from PIL import Image, ImageDraw, ImageFont

COMPOSED = {"grid": AugmentSettings(formats={"grid": 1}), "pic_in_pic": AugmentSettings(formats={"pic_in_pic": 1})}
SEQUENCES = AugmentSettings(formats={"sequence": 1})
CELL, GAP = 448, 40


def photograph() -> Image.Image:
    import sklearn.datasets

    with Image.open(Path(sklearn.datasets.__file__).parent / "images" / "china.jpg") as picture:
        return picture.convert("RGB")


def write_photographs(folder: Path, count: int, size: tuple[int, int], distinct: int = 60) -> None:
    """JPEGs of one photograph, cropped and turned differently; beyond `distinct`, with another comment in the file."""
    source, rng = photograph(), random.Random(0)
    folder.mkdir(parents=True)
    bodies = []
    for _ in range(min(count, distinct)):
        width = rng.randint(400, source.width)
        left, top = rng.randint(0, source.width - width), rng.randint(0, source.height - width * 2 // 3)
        crop = source.crop((left, top, left + width, top + width * 2 // 3)).resize(size, Image.Resampling.BICUBIC)
        crop.save(folder / "one.jpg", quality=90)
        bodies.append((folder / "one.jpg").read_bytes())
    (folder / "one.jpg").unlink()
    for number in range(count):
        body, comment = bodies[number % len(bodies)], f"{number:012d}".encode()
        marked = body[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + body[2:]
        (folder / f"{number:06d}.jpg").write_bytes(marked)


def write_rows(root: Path, rows: int, pictures: int) -> Path:
    objects = ["bus", "dog", "sky", "cup"]
    data = [
        {
            "id": f"{number:012d}",
            "image": f"coco/{number % pictures:06d}.jpg",
            "conversations": [
                {"from": "human", "value": f"<image>\nWhat is the color of the {objects[number % 4]} number {number}?"},
                {"from": "gpt", "value": f"The {objects[number % 4]} in the picture is red."},
            ],
        }
        for number in range(rows)
    ]
    (root / "rows.json").write_text(json.dumps(data))
    return root / "rows.json"


def peer(samples: list[Sample], root: Path, out: Path, quality: int) -> float:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    font = ImageFont.load_default(36)
    started = time.perf_counter()
    for number, sample in enumerate(samples):
        parts = [Image.open(root / path).convert("RGB") for path in sample.source.paths]
        if sample.format == "grid":
            columns = -(-len(parts) // {2: 1, 3: 1, 4: 2, 5: 2, 6: 2}.get(len(parts), 3))
            rows = -(-len(parts) // columns)
            canvas = Image.new("RGB", (columns * (CELL + GAP) - GAP, rows * (CELL + GAP)), "white")
            pen = ImageDraw.Draw(canvas)
            for index, part in enumerate(parts):
                left, top = index % columns * (CELL + GAP), index // columns * (CELL + GAP) + GAP
                scale = min(CELL / part.width, CELL / part.height)
                canvas.paste(
                    part.resize((round(part.width * scale), round(part.height * scale)), Image.Resampling.LANCZOS), (left, top)
                )
                pen.text((left + CELL / 2, top - GAP / 2), f"Image{index + 1}", font=font, fill="black", anchor="mm")
        else:
            canvas, inner = parts
            size = round(canvas.width * 0.7), round(canvas.height * 0.7)
            canvas.paste(
                inner.resize(size, Image.Resampling.LANCZOS), ((canvas.width - size[0]) // 2, (canvas.height - size[1]) // 2)
            )
        canvas.save(out / f"{number}.jpg", quality=quality, subsampling=0)
    return len(samples) / (time.perf_counter() - started)


def product(source: Path, root: Path, out: Path, settings: AugmentSettings, workers: int) -> float:
    shutil.rmtree(out, ignore_errors=True)
    started = time.perf_counter()
    manifest = augment_dataset(source, root, out, settings, workers=workers)
    return manifest.counts["samples"] / (time.perf_counter() - started)


def cpu_seconds() -> float:
    """Of this process and its children that have ended."""
    return sum(os.times()[:4])


def codec_limit(samples: list[Sample], root: Path, out: Path, quality: int) -> float:
    """Samples a second if only every part were decoded (as far reduced as the product does it) and the results encoded."""
    chosen = samples[: max(1, len(samples) // 4)]
    started = time.perf_counter()
    for sample in chosen:
        for path in sample.source.paths:
            with Image.open(root / path) as part:
                if sample.format == "grid":
                    part.draft("RGB", (CELL, CELL * part.height // part.width))
                part.load()
    decoding = time.perf_counter() - started
    composed = [Image.open(out / sample.images[0]).convert("RGB") for sample in chosen]
    started = time.perf_counter()
    for picture in composed:
        picture.save(root / "limit.jpg", quality=quality, subsampling=0)
    return len(chosen) / (decoding + time.perf_counter() - started)


def compare_composition(scratch: Path, rows: int, size: tuple[int, int], name: str, repeat: int) -> None:
    settings, root = COMPOSED[name], scratch / f"{name}{size[0]}"
    write_photographs(root / "coco", max(60, rows // 2), size)
    source, quality = write_rows(root, rows, max(60, rows // 2)), settings.pictures.jpeg_quality
    product(source, root, root / "one", settings, 1)
    samples = list(read_jsonl(root / "one" / "samples.jsonl", Sample))
    runs: dict[str, Callable[[], float]] = {
        "peer": lambda: peer(samples, root, root / "peer", quality),
        "one": lambda: product(source, root, root / "one", settings, 1),
        "two": lambda: product(source, root, root / "two", settings, 2),
        "limit": lambda: codec_limit(samples, root, root / "one", quality),
    }
    rates: dict[str, list[float]] = {name: [] for name in runs}
    cpu = dict.fromkeys(runs, math.inf)
    for _ in range(repeat):
        for way, measure in runs.items():
            started = cpu_seconds()
            rates[way].append(measure())
            cpu[way] = min(cpu[way], cpu_seconds() - started)
    straight, one, two, limit = (statistics.median(rates[way]) for way in runs)
    print(
        f"{name} of {size[0]}x{size[1]}: peer {straight:.1f}/s, one worker {one:.1f}/s ({one / straight:.2f}x; "
        f"{cpu['peer'] / cpu['one']:.2f}x by CPU time), "
        f"two workers {two:.1f}/s ({two / straight:.2f}x; {two / one:.2f}x of one, with {cpu['two'] / cpu['one']:.2f} of its "
        f"CPU time); decode + encode alone {limit:.1f}/s ({limit / straight:.2f}x; "
        f"one worker reaches {one / limit:.0%})",
        flush=True,
    )
    shutil.rmtree(root)


def measure_sequences(scratch: Path, rows: int) -> None:
    root = scratch / "sequences"
    write_photographs(root / "coco", rows // 2, (320, 240))
    source = write_rows(root, rows, rows // 2)
    started, cpu = time.perf_counter(), time.process_time()
    made = augment_dataset(source, root, scratch / "sequences-out", SEQUENCES).counts["samples"]
    wall, cpu = time.perf_counter() - started, time.process_time() - cpu
    print(f"sequences: {made} samples of {rows // 2} pictures: {made / wall:.0f}/s, {made / cpu:.0f} per CPU second")


def measure_memory(scratch: Path, rows: int) -> None:
    """Peak memory of a fresh process that makes sequences of so many rows, each with its own small picture."""
    root = scratch / f"memory{rows}"
    write_photographs(root / "coco", rows, (32, 24), distinct=1)
    source = write_rows(root, rows, rows)
    code = (
        "import sys, resource; from pathlib import Path; from mia_augment import AugmentSettings, augment_dataset\n"
        "a, b, c = map(Path, sys.argv[1:4]); augment_dataset(a, b, c, AugmentSettings(formats={'sequence': 1}))\n"
        "status = Path('/proc/self/status').read_text().split()\n"
        "print(int(status[status.index('VmHWM:') + 1]) // 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, source, root, scratch / f"m{rows}"], check=True, capture_output=True, text=True
    )
    print(f"memory: {rows} rows ({source.stat().st_size >> 20} MB of JSON): {done.stdout.strip()} MB at the peak")
    shutil.rmtree(root)


def tree_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure_scale(scratch: Path, rows: int) -> None:
    """CPU and bytes a row of the paper's formats, each with a picture of its own of 640x480: reading, then two shards."""
    root, out = scratch / "scale", scratch / "scale-out"
    write_photographs(root / "coco", rows, (640, 480))
    source = write_rows(root, rows, rows)
    shards = max(2, rows // 1000)
    started = time.process_time()
    last = augment_dataset(source, root, out, shard=f"{shards}/{shards}")
    both = time.process_time() - started
    started = time.process_time()
    shard = augment_dataset(source, root, out, shard=f"1/{shards}")
    composing = time.process_time() - started
    reading = both - composing * last.counts["samples"] / shard.counts["samples"]
    samples = shard.counts["samples"]
    index = tree_bytes(out / ".work" / "index")
    text = (out / "shards" / f"00001-of-{shards:05d}" / "samples.jsonl").stat().st_size
    made = samples + last.counts["samples"]
    print(
        f"of {rows} rows, a row: read and checked in {reading / rows * 1e6:.0f} CPU us, "
        f"composed in {composing / samples * 1e3:.2f} CPU ms; index {index / rows:.0f} bytes, "
        f"sample {text / samples:.0f} bytes of JSON, composed pictures {tree_bytes(out / 'images') / made / 1000:.1f} kB",
        flush=True,
    )
    shutil.rmtree(root)
    shutil.rmtree(out)


def measure_index_memory(scratch: Path, rows: int) -> None:
    """Peak memory of building an index of so many rows that share pictures, and of a worker that opens it."""
    root = scratch / f"index{rows}"
    write_photographs(root / "coco", 1000, (32, 24), distinct=1)
    source = root / "rows.jsonl"
    with source.open("w") as file:
        for number in range(rows):
            talk = [
                {"from": "human", "value": f"<image>\nWhat is the color of thing number {number}?"},
                {"from": "gpt", "value": f"It is red in picture {number}."},
            ]
            file.write(
                json.dumps({"id": f"{number:012d}", "image": f"coco/{number % 1000:06d}.jpg", "conversations": talk}) + "\n"
            )
    code = (
        "import sys, resource, time; from pathlib import Path; from mia_augment import AugmentSettings, augment_dataset\n"
        "a, b, c = map(Path, sys.argv[1:4]); started = time.process_time()\n"
        "augment_dataset(a, b, c, AugmentSettings(formats={'sequence': 1}), shard=sys.argv[4])\n"
        "status = Path('/proc/self/status').read_text().split()\n"
        "print(int(status[status.index('VmHWM:') + 1]) // 1024, round(time.process_time() - started, 1))"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", code, source, root, scratch / f"i{rows}", shard], check=True, capture_output=True, text=True
        ).stdout.split()
        for shard in ("1/1000", "2/1000")
    ]
    (built, seconds), (opened, _) = told
    print(f"{rows} rows: {built} MB and {seconds} CPU s to read them, {opened} MB where the index is only opened", flush=True)
    shutil.rmtree(root)
    shutil.rmtree(scratch / f"i{rows}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--sequence-rows", type=int, default=60_000)
    parser.add_argument("--memory-rows", default="10000,100000")
    parser.add_argument("--scale-rows", type=int, default=0)
    parser.add_argument("--scratch", type=Path, default=None)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        print(f"{os.cpu_count()} cores, Pillow {Image.__version__}")
        if options.scale_rows:
            measure_scale(Path(scratch), options.scale_rows)
            for rows in (options.scale_rows * 10, options.scale_rows * 50):
                measure_index_memory(Path(scratch), rows)
            return
        for size in ((640, 480), (1024, 768)):
            for name in COMPOSED:
                compare_composition(Path(scratch), options.rows, size, name, options.repeat)
        measure_sequences(Path(scratch), options.sequence_rows)
        for rows in options.memory_rows.split(","):
            measure_memory(Path(scratch), int(rows))


if __name__ == "__main__":
    main()
