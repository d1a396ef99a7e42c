"""The report's page in a real browser, where one is installed: filters, toggles, paging; nothing from the data is run."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from mia_augment.files import Manifest, write_jsonl, write_manifest
from mia_augment.records import Attention, Region, ScoredSample, Source
from mia_cli.attention_maps import AttentionMap
from mia_cli.config import ReportSettings
from mia_cli.layout import Folders
from mia_cli.report import write_report
from mia_select.settings import SelectSettings
from mia_select.stage import select_pairs
from PIL import Image

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome", "chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium or chrome installed")

EVIL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
DRIVER = """
<script>
const told = {errors: []};
addEventListener("error", (event) => told.errors.push(String(event.message)));
const at = (id) => document.getElementById(id);
const cards = () => document.querySelectorAll("#gallery article").length;
const set = (id, value) => { at(id).value = value; at(id).dispatchEvent(new Event("input")); };
const visible = (node) => getComputedStyle(node).display !== "none";
const shown = (selector) => [...document.querySelectorAll(selector)].filter(visible).length;
addEventListener("load", () => {
  told.first = cards();
  told.place = at("place").textContent;
  document.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowRight", bubbles: true}));
  told.second = cards();
  set("says", "another picture's answer"); told.echoes = cards(); set("says", "");
  set("outcome", "became a pair"); told.pairs = at("place").textContent; set("outcome", "");
  set("words", "onerror"); told.evil = cards(); told.text = document.querySelector(".rejected").textContent; set("words", "");
  told.boxes = shown("#gallery .box.target");
  at("outlines").click(); told.without = shown("#gallery .box.target");
  told.cold = shown("#gallery .heat"); at("attention").click(); told.hot = shown("#gallery .heat");
  set("opacity", "0.25"); told.opacity = getComputedStyle(document.querySelector("#gallery .heat")).opacity;
  told.alts = [...document.querySelectorAll("#gallery .frame > img:first-child")].every((image) => image.alt);
  const before = getComputedStyle(document.body).backgroundColor;
  at("theme").click(); told.theme = before !== getComputedStyle(document.body).backgroundColor;
  told.title = document.title;
  told.requests = performance.getEntriesByType("resource").filter((entry) => !entry.name.startsWith("data:")).length;
  const result = document.createElement("pre");
  result.id = "told";
  result.textContent = JSON.stringify(told);
  document.body.append(result);
});
</script>
"""


def scored(number: int) -> ScoredSample:
    response = EVIL if number == 0 else "Blue." if number % 2 else "Green."
    return ScoredSample(
        id=f"row-{number}", format="sequence", images=["a.png", "b.png"], answer="Red.", target=1, response=response,
        prompt=f"Image1:<image>\nImage2:<image>\nIn Image2, what is row {number}?", response_tokens=2, mean_logp=-0.5,
        perplexity=1.6,
        regions=[Region(image=0, label="Image1"), Region(image=1, label="Image2")],
        source=Source(ids=["x", "y"], paths=["a.png", "b.png"], question="What?", answers=["Blue.", "Red."]),
        attention=Attention(layer=2, rows="generated", region_mass=[0.3, 0.1], image_mass=[0.3, 0.1], ratio=0.25),
    )  # fmt: skip


@pytest.fixture
def told(tmp_path: Path) -> dict:
    """What the driver in the page saw."""
    folders = Folders(tmp_path)
    folders.scored.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (60, 40), "red").save(folders.scored / name)
    write_jsonl(folders.scored / "scored.jsonl", [scored(number) for number in range(30)])
    write_manifest(folders.scored, Manifest(stage="score", version="1", settings={}, inputs={}))
    select_pairs(folders.scored, folders.pairs, SelectSettings(max_length_ratio=None, max_pairs=25))
    write_jsonl(folders.attention / "maps.jsonl", [AttentionMap(id=f"row-{n}", maps=[[[0.5]], [[1.0]]]) for n in range(30)])
    page = tmp_path / "report.html"
    write_report(tmp_path, page, ReportSettings())
    page.write_text(page.read_text("utf-8").replace("</body>", f"{DRIVER}</body>"), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
    command = [str(BROWSER), *options, f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r'<pre id="told">(.*?)</pre>', dom, re.DOTALL)
    assert found, dom[-2000:]
    return json.loads(html.unescape(found[1]))


def test_the_gallery_works_in_a_browser(told):
    assert told["errors"] == []
    assert (told["first"], told["second"]) == (20, 10)
    assert told["place"] == "30 of 30 examples, page 1 of 2"
    assert told["echoes"] == 15
    assert told["pairs"].startswith("25 of 30")
    assert (told["boxes"], told["without"]) == (20, 0)
    assert (told["cold"], told["hot"]) == (0, 40)
    assert told["opacity"] == "0.25"
    assert told["alts"] is True
    assert told["theme"] is True
    assert told["requests"] == 0
    assert told["evil"] == 1
    assert told["text"] == EVIL
    assert told["title"] == "MIA-DPO run"
