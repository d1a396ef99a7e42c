"""The page of `mia_attention.look` in a real browser, where one is installed: stepping through words, switching, two widths."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser_pages import NEEDS_BROWSER, opened_page
from mia_attention import AnswerView, look
from mia_cli.drawn import drawing
from mia_cli.loading.load import load
from playwright.sync_api import Browser, Page, expect

pytestmark = NEEDS_BROWSER


@pytest.fixture(scope="module")
def view() -> AnswerView:
    rng = random.Random(3)
    pictures = [drawing.draw_scene(rng.choice(drawing.scenes("test")), rng)[0] for _ in range(3)]
    pictures[2] = pictures[2].resize((160, 80))  # of another shape than its neighbours
    return look(*load("embedded"), pictures, "In Image2, what color are the shapes?")


@pytest.fixture(params=[(390, "light"), (1280, "dark")], ids=["phone", "desk"])
def opened(request, browser: Browser, view: AnswerView, tmp_path: Path) -> Iterator[Page]:
    """The page; it must have said nothing on the console and fetched nothing."""
    width, scheme = request.param
    path = view.save(tmp_path / "where.html")
    with opened_page(browser, path, viewport={"width": width, "height": 844}, color_scheme=scheme) as page:
        yield page


def percents(shares: list[float] | None) -> list[str]:
    assert shares is not None
    return [f"{round(100 * share)}\u00a0%" for share in shares]


def shown(page: Page) -> list[str]:
    return page.locator("figcaption b").all_inner_texts()


def test_words_are_stepped_through_by_key_and_told(opened, view):
    assert view.gradient is not None
    told = opened.get_by_role("status")
    expect(told).to_contain_text("The whole answer: Image1")
    assert shown(opened) == percents(view.share)
    for _ in range(4):
        opened.keyboard.press("ArrowRight")
    expect(told).to_contain_text("“red”: Image1")
    assert shown(opened) == percents(view.gradient.shares[3])
    expect(opened.get_by_role("button", name="red")).to_be_focused()
    opened.keyboard.press("ArrowLeft")
    expect(told).to_contain_text("“is”")
    opened.keyboard.press("End")
    expect(told).to_contain_text("The end of the answer")
    opened.keyboard.press("Escape")
    assert shown(opened) == percents(view.share)


def test_a_word_is_pointed_at(opened, view):
    opened.get_by_role("button", name="red").hover()
    expect(opened.get_by_role("status")).to_contain_text("“red”")
    opened.locator("h1").hover()
    expect(opened.get_by_role("status")).to_contain_text("The whole answer")
    opened.get_by_role("button", name="red").click()
    opened.locator("h1").hover()
    expect(opened.get_by_role("status")).to_contain_text("“red”")


def test_attention_and_gradient_are_switched(opened, view):
    opened.get_by_role("button", name="attention", exact=True).click()
    assert shown(opened) == percents(view.attention.share)
    expect(opened.locator("#reads")).to_have_text("attention of layer 2.")
    opened.get_by_role("button", name="gradient").click()
    assert shown(opened) == percents(view.share)


PIXEL = (
    "canvas => [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data].filter((_, i) => i % 4 === 3)"
)


def test_the_heat_lies_over_the_picture_beside_it_or_nowhere(opened):
    canvas, picture = opened.locator("figure canvas").nth(1), opened.locator("figure img").nth(1)
    clear = canvas.evaluate(PIXEL)
    assert min(clear) < 20 < max(clear) <= 200  # the picture is seen through the heat everywhere
    for figure in opened.locator("figure").all():
        assert figure.locator("canvas").bounding_box() == pytest.approx(figure.locator("img").bounding_box(), abs=1)
    opened.get_by_role("button", name="beside").click()
    assert canvas.bounding_box()["y"] >= picture.bounding_box()["y"] + picture.bounding_box()["height"] - 1
    opened.get_by_role("button", name="pictures only").click()
    expect(canvas).to_be_hidden()


def test_nothing_is_wider_than_the_screen_and_pictures_lie_in_rows(opened):
    assert opened.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    boxes = [opened.locator("figure img").nth(index).bounding_box() for index in range(3)]
    assert boxes[0]["y"] == pytest.approx(boxes[1]["y"], abs=1)
    assert all(box["width"] >= 140 for box in boxes)
    least = [button.bounding_box()["height"] for button in opened.locator(".controls button").all()]
    assert min(least) >= 24


def test_every_word_stands_in_the_table(opened, view):
    opened.get_by_text("All words in a table").click()
    rows = opened.locator("details table tbody tr")
    assert rows.count() == len(view.tokens)
    assert "red" in rows.nth(3).inner_text()
    assert percents(view.gradient.shares[3])[1] in rows.nth(3).inner_text()


def test_without_scripts_the_whole_answer_is_there(browser, view, tmp_path):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(view.save(tmp_path / "where.html").as_uri())
    assert shown(page) == percents(view.share)
    assert page.locator("#controls").is_hidden()
    context.close()


def test_in_a_notebook_the_view_works_within_its_cell(browser, view, tmp_path):
    cell = tmp_path / "cell.html"
    cell.write_text(f"<!doctype html><title>a notebook</title><div>{view._repr_html_()}</div>", "utf-8")
    with opened_page(browser, cell, viewport={"width": 900, "height": 900}) as page:
        frame = page.frame_locator("iframe")
        frame.get_by_role("button", name="red").click()
        expect(frame.get_by_role("status")).to_contain_text("“red”")
        assert frame.locator("figcaption b").all_inner_texts() == percents(view.gradient.shares[3])
        assert page.locator("iframe").bounding_box()["width"] > 800
