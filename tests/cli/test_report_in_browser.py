"""The report's page in a real browser, where one is installed: filters, toggles, paging; nothing from the data is run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser_pages import NEEDS_BROWSER, opened_page
from mia_attention import AttentionMap
from mia_augment.records import Attention, Region, ScoredSample, Source
from mia_augment.storage.files import Manifest, write_jsonl, write_manifest
from mia_cli.config.schema import ReportSettings
from mia_cli.layout import Folders
from mia_cli.report import write_report
from mia_select.settings import SelectSettings
from mia_select.stage import select_pairs
from PIL import Image
from playwright.sync_api import Browser, Page, expect

pytestmark = NEEDS_BROWSER

EVIL = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


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


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run with 30 wrong answers: 25 pairs, 5 beyond their limit; one answer is an attack."""
    folder = tmp_path_factory.mktemp("run")
    folders = Folders(folder)
    folders.scored.mkdir()
    for name in ("a.png", "b.png"):
        Image.new("RGB", (60, 40), "red").save(folders.scored / name)
    write_jsonl(folders.scored / "scored.jsonl", [scored(number) for number in range(30)])
    write_manifest(folders.scored, Manifest(stage="score", version="1", settings={}, inputs={}))
    select_pairs(folders.scored, folders.pairs, SelectSettings(max_length_ratio=None, max_pairs=25))
    write_jsonl(
        folders.attention / "maps.jsonl",
        [AttentionMap(id=f"row-{n}", maps=[[[0.5]], [[1.0]]], losses=[-0.25, 3.1], alone=[0.75, 0.25]) for n in range(30)],
    )
    log = [
        {"step": step, "loss": -0.0571 / step, "learning_rate": 1.3e-6 * step, "grad_norm": 1234.5 * step} for step in (1, 1500)
    ]
    folders.trained.mkdir()
    (folders.trained / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    write_report(folder, folder / "report.html", ReportSettings(title="A run"))
    return folder / "report.html"


@pytest.fixture
def opened(browser: Browser, report: Path) -> Iterator[Page]:
    """The page; whatever was asked of it, it must have said nothing on the console and fetched nothing."""
    with opened_page(browser, report, viewport={"width": 1280, "height": 900}, color_scheme="light") as page:
        yield page


def cards(page: Page) -> int:
    return page.locator("#gallery article").count()


def test_pages_are_turned_by_button_and_by_key(opened):
    place = opened.locator("#place")
    expect(place).to_have_text("30 of 30 examples, page 1 of 2")
    assert cards(opened) == 20
    opened.get_by_role("button", name="Next").click()
    assert cards(opened) == 10
    opened.keyboard.press("ArrowLeft")
    expect(place).to_have_text("30 of 30 examples, page 1 of 2")


@pytest.mark.parametrize(
    ("label", "choice", "count"),
    [
        ("Format", "sequence 2", 30),
        ("Hallucination", "sequence confusion: looked at another picture", 30),
        ("Answer", "another picture's answer", 15),
        ("Rule", "became a pair", 25),
        ("Rule", "dropped: beyond the limit of pairs", 5),
    ],
)
def test_examples_are_filtered(opened, label, choice, count):
    opened.get_by_label(label, exact=True).select_option(choice)
    assert opened.locator("#place").inner_text().startswith(f"{count} of 30 examples")


def test_words_are_searched_for(opened):
    opened.get_by_label("Words").fill("row 7?")
    assert cards(opened) == 1
    opened.get_by_label("Words").fill("no such thing")
    assert cards(opened) == 0


def test_a_script_in_an_answer_is_shown_and_not_run(opened):
    opened.get_by_label("Words").fill("onerror")
    assert opened.locator("#gallery .rejected").inner_text() == EVIL
    assert opened.locator("#gallery script").count() == 0
    assert opened.title() == "A run"


def test_outlines_and_attention_can_be_turned_off(opened):
    boxes, heat = opened.locator("#gallery .box.target"), opened.locator("#gallery .heat")
    assert (boxes.count(), heat.count()) == (20, 40)
    expect(boxes.first).to_be_visible()
    opened.get_by_label("outlines").uncheck()
    expect(boxes.first).to_be_hidden()
    opened.get_by_label("opacity").fill("0.25")
    caption = opened.locator("#gallery figcaption").first.inner_text()
    assert "without\u00a0it\u00a0+0.3\u00a0nats" in caption or "without\u00a0it\u00a0−3.1\u00a0nats" in caption
    expect(heat.first).to_have_css("opacity", "0.25")
    opened.get_by_label("attention", exact=True).uncheck()
    expect(heat.first).to_be_hidden()


def test_the_target_is_outlined_at_its_place(opened):
    """The second picture of two is asked about: its outline covers it."""
    frame = opened.locator("#gallery article").first.locator(".frame").nth(1)
    picture, box = frame.locator("img").first.bounding_box(), frame.locator(".box.target").bounding_box()
    assert box == pytest.approx(picture)


def test_words_that_differ_are_marked(opened):
    opened.get_by_label("Words").fill("row 7?")
    assert opened.locator("#gallery mark").all_inner_texts() == ["Red.", "Blue."]


def test_light_and_dark_follow_the_system_and_the_button(opened):
    body = opened.locator("body")
    expect(body).to_have_css("background-color", "rgb(250, 250, 248)")
    opened.emulate_media(color_scheme="dark")
    expect(body).to_have_css("background-color", "rgb(20, 21, 26)")
    opened.get_by_role("button", name="Switch between light and dark").click()
    expect(body).to_have_css("background-color", "rgb(250, 250, 248)")


def test_attention_alone_and_knockouts_stand_below_each_picture(opened):
    opened.get_by_label("Words").fill("row 7?")
    told = opened.locator("#gallery figcaption").all_inner_texts()
    assert [" ".join(text.split()) for text in told] == [
        "Image1 attention 75 %, alone 75 %, without it +0.3 nats",
        "Image2 attention 25 %, alone 25 %, without it −3.1 nats",
    ]
    assert "knockout gap 3.35" in opened.locator("#gallery .scores").inner_text()


def test_what_is_chosen_stands_in_the_address(opened, report):
    opened.get_by_label("Rule", exact=True).select_option("became a pair")
    opened.get_by_label("Words").fill("row 2")
    expect(opened).to_have_url(f"{report.as_uri()}#examples?outcome=became+a+pair&words=row+2")
    opened.get_by_role("button", name="Reset filters").click()
    expect(opened).to_have_url(f"{report.as_uri()}#examples")
    opened.get_by_role("button", name="Next").click()
    expect(opened).to_have_url(f"{report.as_uri()}#examples?page=2")


def test_an_address_chooses(opened, report):
    opened.goto(f"{report.as_uri()}#examples?words=row+7%3F")
    expect(opened.locator("#place")).to_have_text("1 of 30 examples, page 1 of 1")
    expect(opened.get_by_label("Words")).to_have_value("row 7?")
    opened.goto(f"{report.as_uri()}#examples?page=2")  # by the same open page: only the fragment changes
    expect(opened.locator("#place")).to_have_text("30 of 30 examples, page 2 of 2")
    opened.goto(f"{report.as_uri()}#examples?kind=no+such+kind&page=99&owned=1")
    expect(opened.locator("#place")).to_have_text("30 of 30 examples, page 2 of 2")
    expect(opened.get_by_label("Hallucination")).to_have_value("")


def test_filters_are_reset_and_an_empty_choice_says_so(opened):
    reset, empty = opened.get_by_role("button", name="Reset filters"), opened.locator("#empty")
    expect(reset).to_be_disabled()
    expect(empty).to_be_hidden()
    opened.get_by_label("Words").fill("no such thing")
    expect(empty).to_contain_text("No example fits these filters.")
    opened.get_by_role("button", name="Show all").click()
    expect(empty).to_be_hidden()
    assert cards(opened) == 20
    expect(reset).to_be_disabled()
    opened.get_by_label("Format", exact=True).select_option("sequence 2")
    expect(reset).to_be_enabled()


def test_pictures_are_there_for_who_captures_the_page_whole(opened):
    """Nobody has scrolled: all pictures of this page of examples are loaded, and they stand in the print."""
    pictures = opened.locator("#gallery .frame > img:first-child")
    assert pictures.count() == 40
    opened.wait_for_function("[...document.querySelectorAll('#gallery img')].every(node => node.complete && node.naturalWidth)")


def test_the_print_is_light_whole_and_without_controls(opened):
    opened.emulate_media(media="print", color_scheme="dark")
    expect(opened.locator("body")).to_have_css("background-color", "rgb(255, 255, 255)")
    expect(opened.locator("nav")).to_be_hidden()
    expect(opened.get_by_label("Words")).to_be_hidden()
    expect(opened.locator("#place")).to_be_visible()
    expect(opened.locator(".step .bar").first).to_have_css("print-color-adjust", "exact")
    opened.set_viewport_size({"width": 690, "height": 1000})  # A4 less its margins
    clips = "node => node.scrollWidth > node.clientWidth + 1 && getComputedStyle(node).overflowX != 'visible'"
    assert opened.locator(".wide").evaluate_all(f"nodes => nodes.filter({clips}).length") == 0


INSIDE = """nodes => nodes.filter(node => {
  const text = node.getBoundingClientRect(), figure = node.ownerSVGElement.getBoundingClientRect();
  return text.left < figure.left - 0.5 || text.right > figure.right + 0.5 || text.bottom > figure.bottom + 0.5;
}).map(node => node.textContent)"""


@pytest.mark.parametrize("width", [360, 390, 1280])
def test_no_letter_of_a_chart_is_cut_off(opened, width):
    opened.set_viewport_size({"width": width, "height": 844})
    assert opened.locator("svg text").count() == 19  # a histogram and three curves
    assert opened.locator("svg text").evaluate_all(INSIDE) == []


def test_it_fits_a_phone(opened):
    opened.set_viewport_size({"width": 360, "height": 740})
    assert opened.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_table_that_scrolls_has_a_shadow_at_its_edge(opened):
    opened.set_viewport_size({"width": 240, "height": 740})
    wide = opened.locator(".wide").first
    assert wide.evaluate("node => node.scrollWidth > node.clientWidth")
    expect(wide).to_have_css("background-attachment", "local, local, scroll, scroll")


def test_every_picture_has_words(opened):
    pictures = opened.locator("#gallery .frame > img:first-child")
    assert all(pictures.nth(index).get_attribute("alt").startswith("Picture ") for index in range(pictures.count()))
    assert opened.locator("svg:not([aria-label])").count() == 0
