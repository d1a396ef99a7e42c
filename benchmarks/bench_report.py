"""Opening the report in headless Chromium: wall seconds from the file to its first drawn page, and the main thread's.

The run directory is made up: sequences of 2 to 5 pictures, every picture shown once. Thumbnails are real WebP pictures of
one pool, made different by a few bytes behind their end: encoding 17,500 would take longer than everything else.

    uv run python benchmarks/bench_report.py [--pairs 5000] [--repeats 5] [--keep report.html]
"""

from __future__ import annotations

import argparse
import base64
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from mia_augment.records import Attention, Region, ScoredSample, Source
from mia_augment.storage.files import Manifest, write_jsonl, write_manifest
from mia_cli.config.schema import ReportSettings
from mia_cli.layout import Folders
from mia_cli.report import gallery, write_report
from mia_cli.report.thumbnails import Thumbnail, thumbnail
from mia_select.settings import SelectSettings
from mia_select.stage import select_pairs
from PIL import Image, ImageFilter
from playwright.sync_api import Browser, sync_playwright

QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--no-first-run"]


class PooledThumbnails:
    """Stands in for `mia_cli.report.thumbnails.Thumbnails`."""

    def __init__(self, *_: object) -> None:
        rng = np.random.default_rng(0)
        noise = [Image.fromarray(rng.integers(0, 256, (120, 160, 3), dtype=np.uint8)) for _ in range(50)]
        self._pool = [thumbnail(picture.filter(ImageFilter.GaussianBlur(1.2)), 160) for picture in noise]
        self.made: dict[str, Thumbnail] = {}
        self.missing: set[str] = set()

    def add(self, name: str, *, composed: bool = False) -> None:
        if name not in self.made:
            like = self._pool[len(self.made) % len(self._pool)]
            head, data = like["src"].split(",")
            other = base64.b64encode(base64.b64decode(data) + len(self.made).to_bytes(6, "big")).decode("ascii")
            self.made[name] = {**like, "src": f"{head},{other}"}


def scored(number: int) -> ScoredSample:
    parts = 2 + number % 4
    paths = [f"p/{number}-{part}.png" for part in range(parts)]
    return ScoredSample(
        id=f"row-{number:06}", format="sequence", images=paths, answer="The small dog lies under a blue table.",
        response="The large cat stands beside a red car.", target=number % parts,
        response_tokens=9, mean_logp=-0.5, perplexity=1.6,
        prompt="".join(f"Image{part + 1}:<image>\n" for part in range(parts)) + f"In Image1, what is seen in row {number}?",
        regions=[Region(image=part, label=f"Image{part + 1}") for part in range(parts)],
        source=Source(ids=[str(number)] * parts, paths=paths, question="What?"),
        attention=Attention(layer=2, rows="generated", region_mass=[0.1] * parts, image_mass=[0.1] * parts, ratio=1 / parts),
    )  # fmt: skip


def make_report(folder: Path, pairs: int) -> Path:
    folders = Folders(folder)
    folders.scored.mkdir(parents=True)
    write_jsonl(folders.scored / "scored.jsonl", map(scored, range(pairs)))
    write_manifest(folders.scored, Manifest(stage="score", version="1", settings={}, inputs={}))
    select_pairs(folders.scored, folders.pairs, SelectSettings())
    gallery.Thumbnails = PooledThumbnails  # type: ignore[misc,assignment]
    write_report(folder, folder / "report.html", ReportSettings(title="A large run", pairs=pairs))
    return folder / "report.html"


def opening(browser: Browser, page_file: Path) -> dict[str, float]:
    """One fresh page: seconds to its `load` event with the gallery's first page drawn, then to other filters."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(60_000)
    session = context.new_cdp_session(page)
    session.send("Performance.enable")
    started = time.perf_counter()
    page.goto(page_file.as_uri(), wait_until="load", timeout=60_000)
    pictures = page.locator("article.pair img").count()
    wall = time.perf_counter() - started
    metrics = {entry["name"]: entry["value"] for entry in session.send("Performance.getMetrics")["metrics"]}
    started = time.perf_counter()
    page.locator("#bucket").select_option("sequence 5")
    filtered = time.perf_counter() - started
    page.locator("article.pair img").first.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('article.pair img').naturalWidth > 0")
    context.close()
    if pictures < 40:
        raise SystemExit(f"expected the pictures of 20 pairs, got {pictures}")
    return {"wall": wall, "cpu": metrics["TaskDuration"], "script": metrics["ScriptDuration"], "filter": filtered}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=5000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--open", type=Path, nargs="*", default=[], help="pages to open in turns, instead of one made up")
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    executable = next(path for name in ("chromium", "google-chrome", "chrome") if (path := shutil.which(name)))
    with tempfile.TemporaryDirectory() as folder:
        pages = arguments.open or [make_report(Path(folder) / "run", arguments.pairs)]
        if arguments.keep:
            shutil.copy(pages[0], arguments.keep)
        found: dict[Path, list[dict[str, Any]]] = {page: [] for page in pages}
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=executable, args=QUIET)
            for _ in range(arguments.repeats):
                for page in pages:
                    found[page].append(opening(browser, page))
        for page, results in found.items():
            size = page.stat().st_size / 1e6
            figures = ", ".join(f"{name} {statistics.median(r[name] for r in results):.2f} s" for name in results[0])
            print(f"{page.name}: {size:.0f} MB; {figures} (median of {len(results)})")


if __name__ == "__main__":
    main()
