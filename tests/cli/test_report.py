"""The report of a run: what it shows, and that nothing from the data is more than text in it."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markupsafe import Markup
from mia_attention import AttentionMap
from mia_augment.records import Attention, Region, ScoredSample, Source
from mia_augment.storage.files import Manifest, read_manifest, write_json, write_jsonl, write_manifest
from mia_cli.config.schema import ReportSettings
from mia_cli.layout import Folders
from mia_cli.report import svg as figures
from mia_cli.report import write_report
from mia_cli.report.collect import curves
from mia_cli.report.notes import short_notes
from mia_cli.report.page import passing
from mia_select.evaluation.accuracy import predict, summarize
from mia_select.selection.calibration import BucketThreshold
from mia_select.selection.funnel import Selection
from mia_select.selection.selector import Selector
from mia_select.settings import SelectSettings
from mia_select.stage import select_pairs
from PIL import Image

EVIL = "<script>alert('x')</script> & \"quotes\" </script>"


def scored(number: int, response: str, ratio: float | None, answer: str = "The color is red.") -> ScoredSample:
    return ScoredSample(
        id=f"row-{number}",
        format="sequence",
        images=["a.png", "b.png"],
        prompt="Image1:<image>\nImage2:<image>\nIn Image2, what color is it?",
        answer=answer,
        regions=[Region(image=0, label="Image1"), Region(image=1, label="Image2", box=(10, 20, 30, 40))],
        target=1,
        source=Source(
            ids=["x", "y"], paths=["a.png", "b.png"], question="What color is it?", answers=["The color is blue.", answer]
        ),
        response=response,
        response_tokens=5,
        mean_logp=-0.5,
        perplexity=1.65,
        attention=Attention(layer=2, rows="generated", region_mass=[0.3, 0.1], image_mass=[0.3, 0.1], ratio=ratio),
    )


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run with a finished score, select and evaluate stage, without any model."""
    folders = Folders(tmp_path / "run")
    folders.scored.mkdir(parents=True)
    for name, color in (("a.png", "blue"), ("b.png", "red")):
        Image.new("RGB", (60, 40), color).save(folders.scored / name)
    samples = [
        scored(0, "The color is blue.", 0.25),
        scored(1, EVIL, 0.3),
        scored(2, "The color is red.", 0.9),
        scored(3, "The color is red.", None),
        scored(4, "The color is green.", 0.35),
    ]
    write_jsonl(folders.scored / "scored.jsonl", samples)
    write_manifest(
        folders.scored, Manifest(stage="score", version="1", settings={}, inputs={"model": "tiny"}, counts={"scored": 5})
    )
    select_pairs(folders.scored, folders.pairs, SelectSettings(max_length_ratio=None, min_edit_distance=None))
    before = [predict(s, s.response, s.answer) for s in samples]
    write_jsonl(folders.evaluated / "predictions.jsonl", before)
    write_json(folders.evaluated / "evaluation.json", summarize(before).model_dump(mode="json"))
    write_manifest(folders.evaluated, Manifest(stage="evaluate", version="1", settings={}, inputs={}, counts={"samples": 5}))
    return tmp_path / "run"


class Page(HTMLParser):
    """Counts elements, and keeps what would be fetched, run or shown."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.data: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attrs)
        self._inside = f"{tag} {values.get('type', '')}".strip()
        self.links += [value for name, value in attrs if name in ("src", "href", "action", "data") and value]

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script application/json":
            self.data.append(data)


def page(run_dir: Path, **settings: object) -> tuple[str, Page]:
    out = run_dir / "report.html"
    size = write_report(run_dir, out, ReportSettings(**settings))
    text = out.read_text(encoding="utf-8")
    assert size == len(text.encode())
    return text, Page(text)


def test_the_page_needs_nothing_from_elsewhere(run_dir):
    text, parsed = page(run_dir)
    assert [link for link in parsed.links if not link.startswith(("#", "data:image/webp;base64,"))] == []
    assert "http" not in re.sub(r"http-equiv", "", text)
    assert "default-src 'none'" in text


def test_a_script_in_an_answer_is_only_text(run_dir):
    text, parsed = page(run_dir, title=EVIL)
    assert parsed.tags.count("script") == 2
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    gallery = json.loads(parsed.data[0])
    assert EVIL in [pair["rejected"] for pair in gallery["pairs"]]


def test_the_gallery_holds_pairs_with_boxes_and_pictures(run_dir):
    _, parsed = page(run_dir)
    gallery = json.loads(parsed.data[0])
    kinds = {pair["id"]: pair["says"] for pair in gallery["pairs"] if pair["outcome"] == "became a pair"}
    assert kinds == {"row-0": "another picture's answer", "row-1": "no picture's answer", "row-4": "no picture's answer"}
    assert gallery["pairs"][0]["regions"][1]["box"] == [10, 20, 30, 40]
    assert gallery["thumbnails"]["a.png"] == {"index": 0, "width": 60, "height": 40}
    assert next(link for link in parsed.links if not link.startswith("#")).startswith("data:image/webp;base64,")


def test_the_number_of_examples_is_limited(run_dir):
    shown = json.loads(page(run_dir, pairs=1)[1].data[0])["pairs"]
    assert [entry["outcome"] for entry in shown].count("became a pair") == 1
    assert page(run_dir, pairs=0)[1].data == []


def test_dropped_samples_are_shown_with_their_rule(run_dir):
    shown = json.loads(page(run_dir)[1].data[0])["pairs"]
    right = {entry["id"]: entry["outcome"] for entry in shown if entry["says"] == "right"}
    assert right == dict.fromkeys(("row-2", "row-3"), "dropped: answered rightly")


def test_attention_is_laid_over_the_pictures_it_was_measured_on(run_dir):
    cells = [[[0.0, 1.0], [0.5, 0.0]], [[0.25, 0.25]]]
    losses = [-0.25, 3.1]
    write_jsonl(run_dir / "attention" / "maps.jsonl", [AttentionMap(id="row-0", maps=cells, losses=losses)])
    shown = {entry["id"]: entry for entry in json.loads(page(run_dir)[1].data[0])["pairs"]}
    assert shown["row-1"]["heat"] is shown["row-1"]["losses"] is None
    assert shown["row-0"]["losses"] == losses
    assert "how the answer&#39;s log-prob changes where that picture is invisible" in page(run_dir)[0]
    assert "likelihood under each picture alone" not in page(run_dir)[0]
    assert shown["row-0"]["scores"]["knockout_gap"] == pytest.approx(3.35)  # the second is asked about: 3.1 - (-0.25)
    first, second = (Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))) for uri in shown["row-0"]["heat"])
    clear, middle, bright = (87, 16, 110, 0), (218, 98, 46, 128), (255, 236, 90, 255)
    assert [first.getpixel(place) for place in ((0, 0), (1, 0), (0, 1), (1, 1))] == [clear, bright, middle, clear]
    assert (second.size, second.getpixel((0, 0))[3]) == ((2, 1), 64)


def test_pictures_keep_their_colours_under_the_attention(run_dir):
    write_jsonl(run_dir / "attention" / "maps.jsonl", [AttentionMap(id="row-0", maps=[[[0.5]], [[1.0]]])])
    written = run_dir / "colours.html"
    write_report(run_dir, written, ReportSettings())
    filters = [rule.split(";")[0] for rule in written.read_text().split("filter:")[1:]]
    assert " brightness(.75)" in [rule.rstrip(" }") for rule in filters]
    assert not [rule for rule in filters if any(word in rule for word in ("saturate", "grayscale", "sepia", "hue"))]


def test_funnel_and_histogram_tell_the_counts(run_dir):
    text, _ = page(run_dir)
    assert "sequence 2: 1 right and 3 wrong answers, threshold 0.80" in text
    assert "3 of 3 wrong answers lie at or below 0.80" in text
    assert "1 could not be measured" in text
    assert "answered wrongly" in text


def test_before_and_after_are_told_with_intervals(run_dir):
    text, _ = page(run_dir)
    shown = " ".join(re.sub(r"<[^>]+>", "", text).split())
    assert "40.0 % [11.8, 76.9]" in shown  # Wilson's interval of 2 of 5
    assert "100.0 % [56.6, 100.0]" in shown
    assert "+60.0 [" in shown
    assert "40.0 → 100.0 %" in shown


def test_kinds_of_mistakes_are_told_before_and_after(run_dir):
    text, _ = page(run_dir)
    assert '<td class="n">1 → 0</td>' in text  # one of the five answers is the other picture's


@pytest.mark.parametrize(("layer", "heading"), [(2, "Where the model looked"), ("alone", "Whose answer it is")])
def test_shares_of_a_likelihood_are_not_called_attention(run_dir, layer, heading):
    folder = Folders(run_dir).scored
    made = read_manifest(folder)
    write_manifest(folder, made.model_copy(update={"settings": {"layer": layer}}))
    text, _ = page(run_dir)
    assert f'<h2 id="ratios">{heading}</h2>' in text
    assert ("Attention on the asked picture over" in text) == (layer == 2)


def test_a_run_with_one_stage_has_a_report_too(tmp_path):
    folder = tmp_path / "run" / "augment"
    counts = {"rows": 7, "samples": 5, "skipped": 2, "skipped/missing file": 2}
    write_manifest(folder, Manifest(stage="augment", version="1", settings={}, inputs={}, counts=counts))
    text, _ = page(tmp_path / "run")
    assert "7 single-image rows became 5 samples" in text
    assert "2 &times; missing file" in text
    assert "Preference pairs" not in text


def bars(figure: Markup, css: str) -> list[float]:
    return [float(height) for height in re.findall(rf'class="{css}"[^>]*height="([\d.]+)"', figure)]


def test_bars_are_as_high_as_their_counts():
    figure = figures.histogram("x", wrong=[0.1, 0.1, 0.1], right=[0.1, 0.9], threshold=0.5, bins=10)
    full = figures.HEIGHT - figures.TOP - figures.BOTTOM
    assert bars(figure, "right") == pytest.approx([full / 4, full / 4], abs=0.06)
    assert bars(figure, "wrong") == pytest.approx([full * 3 / 4], abs=0.06)


@pytest.mark.parametrize(
    ("format_", "text"), [("sequence", "1 of 1 wrong answers lie at or"), ("grid", "0 of 1 wrong answers lie")]
)
def test_a_ratio_at_the_threshold_is_counted_as_the_rule_counts_it(format_, text):
    assert passing((format_, 2), [0.7], 0.7) == f"{text} below 0.70"


def test_the_threshold_stands_at_its_place():
    figure = figures.histogram("x", [0.1], [], threshold=0.25)
    place = figures.LEFT + 0.25 * (figures.WIDTH - figures.LEFT - figures.RIGHT)
    assert f'class="threshold" x1="{place:.1f}"' in figure


def test_values_at_the_ends_fall_into_the_first_and_last_bar():
    assert len(bars(figures.histogram("x", [0.0, 1.0], [], None, bins=4), "wrong")) == 2


def test_a_curve_leaves_out_what_is_no_number():
    figure = figures.curve("loss", [(1, 2.0), (2, float("nan")), (3, 1.0)])
    assert len(re.search(r'points="([^"]+)"', figure)[1].split()) == 2
    assert figures.curve("loss", []) == ""


def test_a_long_curve_is_drawn_by_means_of_neighbours():
    points = [(1, 1), (2, 3), (3, 5), (4, 7), (5, 9)]
    assert figures.thinned(points, most=3) == [(1.5, 2.0), (3.5, 6.0), (5.0, 9.0)]
    assert figures.thinned(points, most=5) == points


def test_a_picture_that_has_gone_costs_no_more_than_itself(run_dir):
    (run_dir / "score" / "b.png").unlink()
    text, parsed = page(run_dir)
    assert list(json.loads(parsed.data[0])["thumbnails"]) == ["a.png"]
    assert "cannot be opened any more and are left out: 1" in text


@pytest.mark.parametrize(("low", "high", "css"), [(1.0, 3.0, "better"), (-3.0, -1.0, "worse"), (-1.0, 1.0, "open")])
def test_an_interval_is_coloured_by_its_side_of_zero(low, high, css):
    assert f'class="interval {css}"' in figures.interval((low + high) / 2, low, high, bound=3.0)


def test_an_interval_stands_where_its_numbers_are():
    """200 px wide with 6 px at each edge: 0 lies at 100, the bound 10 at 194, so 5 lies at 147."""
    figure = figures.interval(5.0, -5.0, 10.0, bound=10.0)
    assert 'x1="53.0" y1="9.0" x2="194.0"' in figure
    assert 'cx="147.0"' in figure


def warned(*warnings: str, **origins: str) -> Selection:
    """A selection with these warnings; `sequence2="keep"`: where that threshold is from."""
    lines = [
        BucketThreshold.model_construct(format=name[:-1], parts=int(name[-1]), origin=origin)
        for name, origin in origins.items()
    ]
    return Selection.model_construct(warnings=list(warnings), thresholds=lines)


def test_a_format_with_many_warnings_gets_one_line():
    inert = ["sequence of 3: the threshold 0.7 is inert, it lets ..", "sequence of 2: the threshold 0.8 is inert, it lets .."]
    chance = "sequence of 3: the ratio does not tell right from wrong (AUROC 0.51 ..), .."
    found = short_notes(warned(*inert, chance, "the rule 'perplexity' dropped 9 of 10", sequence2="keep", sequence3="auroc"))
    assert found == [
        "sequence of 2, 3: the thresholds of the table are inert and were set anew from the data; "
        "the ratio tells wrong from right no better than chance for 3",
        "the rule 'perplexity' dropped 9 of 10",
    ]


def test_warnings_of_the_selection_are_still_recognised(run_dir):
    """`short_notes` reads them by their words: a real selection gives no line that it does not know."""
    samples = [scored(number, "The color is blue.", 0.1 + number / 1000) for number in range(30)]
    samples += [scored(100 + number, "The color is red.", 0.1 + number / 1000) for number in range(30)]
    selector = Selector(SelectSettings(calibrate="auto", max_length_ratio=None, min_edit_distance=None))
    list(selector.run(samples))
    report = selector.report()
    assert len(report.warnings) == 2
    assert short_notes(report) == [
        "sequence of 2: the thresholds of the table are inert and were set anew from the data; "
        "the ratio tells wrong from right no better than chance"
    ]


def test_measurements_on_held_out_pairs_do_not_mix_with_the_training_curve(tmp_path):
    log = tmp_path / "metrics.jsonl"
    lines = [
        {"step": 1, "part": "train", "loss": 3.0},
        {"step": 1, "part": "held_out", "loss": 9.0},
        {"step": 2, "part": "train", "loss": 2.0},
    ]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert curves(log) == {"loss": [(1.0, 3.0), (2.0, 2.0)]}


def test_the_command_writes_where_it_is_told(mia, run_dir, tmp_path):
    """Also of folders that were made stage by stage, without `mia run`."""
    result = mia("report", run_dir, "--out", tmp_path / "page.html")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "page.html").is_file()
