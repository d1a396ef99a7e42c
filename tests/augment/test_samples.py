from __future__ import annotations

import random
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mia_augment import IMAGE, AugmentSettings, augment
from mia_augment.images.time_limit import TooSlow
from mia_augment.records import Sample, Skipped
from PIL import Image

GRID = {"cell": 48, "gap": 12, "label": 10}


def run(data, *, seed: int = 0, rows: list[Any] | None = None, **options):
    """(samples, skipped, composed pictures by name)."""
    pictures: dict[str, Image.Image] = {}
    options = {"grid": GRID, **options}
    made = list(
        augment(
            data.rows if rows is None else rows,
            data.root,
            AugmentSettings.model_validate(options),
            seed=seed,
            write_image=pictures.__setitem__,
        )
    )
    return [m for m in made if isinstance(m, Sample)], [m for m in made if isinstance(m, Skipped)], pictures


def test_a_sequence_names_its_pictures_and_its_target(data):
    samples, skipped, pictures = run(data, formats=["sequence"], sequence={"counts": [3]})
    assert (len(samples), skipped, pictures) == (12, [], {})
    for sample in samples:
        number = sample.target + 1
        assert sample.prompt == f"Image1:<image>\nImage2:<image>\nImage3:<image>\nIn Image{number}, what color is it?"
        assert [region.label for region in sample.regions] == ["Image1", "Image2", "Image3"]
        assert [(region.image, region.box) for region in sample.regions] == [(0, None), (1, None), (2, None)]
        assert len(set(sample.images)) == 3
        name = Path(sample.images[sample.target]).stem
        assert sample.answer == f"It is {name}."
        assert sample.source.answers == [f"It is {Path(path).stem}." for path in sample.images]
        assert sample.source.question == "What color is it?"
        assert sample.source.paths == sample.images
        assert sample.id == f"{name}-sequence3"


@pytest.mark.parametrize("count", range(2, 10))
def test_the_pixels_of_a_grid_are_where_its_regions_say(data, count):
    samples, skipped, pictures = run(data, formats=["grid"], grid={**GRID, "counts": [count]})
    assert (len(samples), skipped) == (12, [])
    for sample in samples:
        (name,) = sample.images
        assert sample.prompt == f"<image>\nIn Image{sample.target + 1}, what color is it?"
        assert sample.parts == count
        for region, path in zip(sample.regions, sample.source.paths, strict=True):
            part = pictures[name].crop(region.box)
            assert part.getcolors() == [(48 * 32, data.colors[Path(path).stem])]
        assert sample.answer == f"It is {Path(sample.source.paths[sample.target]).stem}."


def test_the_target_of_a_pic_in_pic_is_the_inner_picture(data):
    samples, _, pictures = run(data, formats=["pic_in_pic"])
    assert len(samples) == 12
    for sample in samples:
        assert sample.target == 1
        outer, inner = sample.regions
        assert outer.box == (0, 0, 48, 32)
        assert inner.box == (8, 5, 41, 27)  # 70 % of 48 x 32 is 34 x 22; 3 : 2 fits as 33 x 22, that leaves 15 and 10
        picture = pictures[sample.images[0]]
        assert picture.crop(inner.box).getcolors() == [(33 * 22, data.colors[Path(sample.source.paths[1]).stem])]
        assert picture.getpixel((0, 0)) == data.colors[Path(sample.source.paths[0]).stem]
        assert sample.answer == f"It is {Path(sample.source.paths[1]).stem}."
        assert sample.prompt.startswith("<image>\n")
        assert sample.prompt.endswith(", what color is it?")


def test_a_single_picture_keeps_its_question(data):
    samples, _, _ = run(data, formats=["single"])
    assert {sample.prompt for sample in samples} == {"<image>\nWhat color is it?"}
    assert {(sample.parts, sample.target, len(sample.images)) for sample in samples} == {(1, 0, 1)}


def test_every_turn_names_the_picture(data, make_row):
    data.rows[0] = make_row("two", "plain/red.png", ("What color is it?", "Red."), ("Is it round?", "No."), ("Paris?", "Yes."))
    samples, _, _ = run(data, formats=["sequence"])
    sample = next(s for s in samples if s.id.startswith("two"))
    label = f"Image{sample.target + 1}"
    assert [(turn.prompt, turn.answer) for turn in sample.followups] == [
        (f"In {label}, is it round?", "No."),
        (f"In {label}, Paris?", "Yes."),
    ]


def test_shares_are_kept_and_targets_are_uniform(data):
    samples, _, _ = run(data, samples_per_row=250, formats={"sequence": 3, "single": 1}, sequence={"counts": {2: 3, 4: 1}})
    assert len({sample.id for sample in samples}) == len(samples) == 3000
    buckets = Counter((sample.format, sample.parts) for sample in samples)
    assert buckets["single", 1] == pytest.approx(750, abs=100)
    assert buckets["sequence", 2] == pytest.approx(3000 * 9 / 16, abs=110)
    places = Counter(sample.target for sample in samples if sample.parts == 4)
    assert set(places) == {0, 1, 2, 3}
    assert max(places.values()) < 1.35 * min(places.values())


def test_companions_are_uniform_too(data):
    samples, _, _ = run(data, samples_per_row=200, formats=["sequence"], sequence={"counts": [3]})
    used = Counter(path for sample in samples for i, path in enumerate(sample.images) if i != sample.target)
    assert len(used) == 12
    assert max(used.values()) < 1.3 * min(used.values())


def test_a_picture_with_many_rows_is_no_more_often_a_companion(data, make_row):
    rows = [*data.rows, *(make_row(f"more{n}", "plain/red.png", (f"Question {n}?", f"Answer {n}.")) for n in range(60))]
    samples, _, _ = run(data, rows=rows, samples_per_row=60, formats=["sequence"], sequence={"counts": [2]})
    used = Counter(s.images[1 - s.target] for s in samples if s.id.startswith("blue-"))
    assert used["plain/red.png"] < 20  # 60 / 11 are expected, and 51 if rows counted


def test_companions_come_from_the_same_source_set(data, make_row):
    for name in ("red", "green", "blue"):
        data.picture(f"other/{name}.png", data.colors[name], size=(20, 20))
        data.rows.append(make_row(f"other-{name}", f"other/{name}.png", ("What color is it?", f"It is {name}.")))
    samples, _, _ = run(data, formats=["sequence"], sequence={"counts": [3]})
    for sample in samples:
        assert len({path.split("/")[0] for path in sample.images}) == 1
    mixed, _, _ = run(data, formats=["sequence"], sequence={"counts": [3]}, companions="any")
    assert any(len({path.split("/")[0] for path in sample.images}) == 2 for sample in mixed)


def test_a_picture_is_no_companion_of_its_copy(data, make_row):
    original = (data.root / "plain/red.png").read_bytes()
    rows = []
    for number in range(3):
        path = data.root / f"copies/{number}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(original)
        rows.append(make_row(f"copy{number}", f"copies/{number}.png", (f"Question {number}?", f"Answer {number}.")))
    data.picture("copies/blue.png", (1, 2, 250))
    rows.append(make_row("blue", "copies/blue.png", ("And this?", "Blue.")))
    samples, skipped, _ = run(data, rows=rows, formats=["sequence"], sequence={"counts": [2]})
    assert not skipped
    assert all("copies/blue.png" in sample.images for sample in samples)
    _, skipped, _ = run(data, rows=rows, formats=["sequence"], sequence={"counts": [3]})
    assert {s.id for s in skipped} == {"copy0", "copy1", "copy2", "blue"}
    assert "has 1 other usable pictures whose answer differs, 2 are needed" in skipped[0].reason


def test_a_picture_with_the_same_answer_to_the_same_question_is_no_companion(data, make_row):
    rows = [
        make_row("a", "plain/red.png", ("Is it bright?", "Yes.")),
        make_row("b", "plain/green.png", ("is it  bright?", "yes")),
        make_row("c", "plain/blue.png", ("Something else?", "Yes."), ("Is it bright?", "Yes")),
        make_row("d", "plain/black.png", ("Is it bright?", "No.")),
        make_row("e", "plain/navy.png", ("Is it dark?", "Yes.")),
    ]
    samples, _, _ = run(data, rows=rows, samples_per_row=20, formats=["sequence"], sequence={"counts": [2]})
    companions = {path for s in samples if s.id.startswith("a-") for path in s.images} - {"plain/red.png"}
    assert companions == {"plain/black.png", "plain/navy.png"}
    answers = {(path, a) for s in samples if s.id.startswith("a-") for path, a in zip(s.images, s.source.answers, strict=True)}
    assert answers == {("plain/red.png", "Yes."), ("plain/black.png", "No."), ("plain/navy.png", None)}


def test_neither_order_nor_other_processes_change_a_sample(data):
    first, _, _ = run(data, samples_per_row=3)
    shuffled = list(data.rows)
    random.Random(4).shuffle(shuffled)
    second, _, _ = run(data, rows=shuffled, samples_per_row=3)
    assert {s.id: s for s in first} == {s.id: s for s in second}
    other_seed, _, _ = run(data, samples_per_row=3, seed=1)
    assert {s.id: s for s in first} != {s.id: s for s in other_seed}


def test_repeated_ids_become_unique_and_repeated_rows_are_skipped(data, make_row):
    rows = [*data.rows, make_row("red", "plain/blue.png", ("Other?", "Yes.")), data.rows[1]]
    samples, skipped, _ = run(data, rows=rows, formats=["sequence"])
    assert len({sample.id for sample in samples}) == 13
    assert sum(sample.id.startswith("red-") for sample in samples) == 2
    assert [(s.id, s.reason.split(":")[0]) for s in skipped] == [("green", "repeated row")]
    again, _, _ = run(data, rows=rows[::-1], formats=["sequence"])
    assert {s.id for s in again} == {s.id for s in samples}


def test_rows_with_coordinates_go_where_pixels_stay(data, make_row):
    rows = [*data.rows, make_row("box", "plain/red.png", ("Where is it?", "[0.1, 0.2, 0.5, 0.9]"))]
    samples, _, _ = run(data, rows=rows, samples_per_row=30)
    assert {s.format for s in samples if s.id.startswith("box-")} == {"sequence"}
    samples, skipped, _ = run(data, rows=rows, formats=["grid", "pic_in_pic"])
    assert len(samples) == 12
    assert [(s.id, s.reason.split(":")[0]) for s in skipped] == [("box", "coordinates")]


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("plain/none.png", "missing file: 'plain/none.png' is not in"),
        ("../rows.json", "outside the image root"),
        ("plain/../plain/red.png", "outside the image root"),
        ("/etc/passwd", "outside the image root"),
        ("link.png", "outside the image root"),
        ("folder/secret.png", "outside the image root"),
        ("plain", "missing file"),
        ("empty.png", "broken picture"),
        ("cut.png", "broken picture"),
        ("x" * 5000, "bad row: expected a path, or base64"),
        ("x" * 500, "missing file: 'xx"),
    ],
)
def test_a_picture_that_cannot_be_used_costs_its_row(data, make_row, tmp_path, image, reason):
    secret = tmp_path / "secret"
    secret.mkdir()
    Image.new("RGB", (5, 5)).save(secret / "secret.png")
    (data.root / "link.png").symlink_to(secret / "secret.png")
    (data.root / "folder").symlink_to(secret)
    (data.root / "empty.png").touch()
    (data.root / "cut.png").write_bytes((data.root / "plain/red.png").read_bytes()[:60])
    samples, skipped, _ = run(data, rows=[*data.rows, make_row("bad", image, ("What?", "That."))])
    assert len(samples) == 12
    assert [s.id for s in skipped] == ["bad"]
    assert skipped[0].reason.startswith(reason)
    assert str(data.root) not in skipped[0].reason  # the same file on every machine


def test_a_symlink_within_the_image_root_is_fine(data, make_row):
    (data.root / "plain/linked.png").symlink_to(data.root / "plain/red.png")
    samples, skipped, _ = run(data, rows=[*data.rows, make_row("linked", "./plain//linked.png", ("What?", "That."))])
    assert not skipped
    assert next(s for s in samples if s.id.startswith("linked")).source.paths.count("plain/linked.png") == 1


@pytest.fixture
def damaged(data):
    """Header, end and checksums of the red picture are sound, so only decoding tells."""
    path = data.root / "plain/red.png"
    body = bytearray(path.read_bytes())
    start = body.index(b"IDAT")
    end = start + 4 + int.from_bytes(body[start - 4 : start])
    body[start + 6] ^= 0xFF
    body[end : end + 4] = zlib.crc32(body[start:end]).to_bytes(4)
    path.write_bytes(body)


def test_damage_in_the_middle_is_found_at_once_where_asked_for(data, damaged):
    assert len(run(data, formats=["sequence"])[0]) == 12
    samples, skipped, _ = run(data, formats=["sequence"], pictures={"verify": "decode"})
    assert len(samples) == 11
    assert all("plain/red.png" not in sample.images for sample in samples)
    assert [(s.id, s.reason.split(":")[0]) for s in skipped] == [("red", "broken picture")]


def test_a_picture_that_took_too_long_is_not_tried_again(data, monkeypatch):
    tried: list[Path] = []

    def slow(path, limits, fit_into):
        tried.append(path)
        raise TooSlow(f"picture too slow: {path}")

    data.picture("plain/red.png", data.colors["red"], size=(3000, 3000))
    monkeypatch.setattr("mia_augment.images.decode.open_in_subprocess", slow)
    samples, skipped, _ = run(
        data, formats=["grid"], grid={**GRID, "counts": [9]}, samples_per_row=2, pictures={"max_seconds": 1}
    )
    assert len(samples) == 22
    assert [(s.id, s.reason) for s in skipped] == [("red", "picture too slow: 'plain/red.png'")] * 2
    assert tried == [data.root / "plain/red.png"]


def test_a_companion_that_turns_out_broken_is_replaced(data, damaged):
    samples, skipped, _ = run(data, formats=["grid"], grid={**GRID, "counts": [9]})
    assert len(samples) == 11
    assert all("plain/red.png" not in sample.source.paths for sample in samples)
    assert [s.id for s in skipped] == ["red"]
    assert skipped[0].reason.startswith("broken picture: 'plain/red.png'")


def test_long_answers_are_skipped(data, make_row):
    data.rows.append(make_row("long", "plain/red.png", ("What?", "x" * 513)))
    data.rows.append(make_row("fits", "plain/red.png", ("What?", "x" * 512)))
    samples, skipped, _ = run(data)
    assert [(s.id, s.reason) for s in skipped] == [("long", "long answer: 513 characters, more than max_answer_chars 512")]
    assert len(samples) == 13


def test_per_bucket_gives_exactly_as_many_of_each(data, make_row):
    data.rows.append(make_row("box", "plain/red.png", ("Where is it?", "[0.1, 0.2, 0.5, 0.9]")))
    options = {"per_bucket": 12, "formats": ["sequence", "grid", "single"], "sequence": {"counts": [2, 3]}}
    samples, skipped, _ = run(data, grid={**GRID, "counts": [4]}, **options)
    assert Counter((s.format, s.parts) for s in samples) == {
        ("sequence", 2): 12,
        ("sequence", 3): 12,
        ("grid", 4): 12,
        ("single", 1): 12,
    }
    assert len({sample.id for sample in samples}) == 48
    assert {s.id for s in skipped} <= {"box"}
    few, _, _ = run(data, grid={**GRID, "counts": [4]}, **{**options, "per_bucket": 5})
    assert set(Counter((s.format, s.parts) for s in few).values()) == {5}
    all_there_is, _, _ = run(data, grid={**GRID, "counts": [4]}, **{**options, "per_bucket": 100})
    assert Counter((s.format, s.parts) for s in all_there_is)["grid", 4] == 12


def test_templates_of_the_user_are_used(data):
    templates = {"named": ["About {label}: {question}"], "pic_in_pic": ["{question} (inner)"]}
    samples, _, _ = run(data, templates=templates, formats=["sequence", "pic_in_pic"], samples_per_row=4)
    for sample in samples:
        question = sample.prompt.rsplit(f"{IMAGE}\n", 1)[1]
        if sample.format == "sequence":
            assert question == f"About Image{sample.target + 1}: What color is it?"
        else:
            assert question == "What color is it? (inner)"


def test_a_composed_picture_never_takes_the_name_of_an_original(data, make_row):
    samples, _, _pictures = run(data, formats=["grid"], grid={**GRID, "counts": [2]})
    taken = samples[0]
    data.picture(taken.images[0], (1, 2, 3))
    again, skipped, _ = run(data, formats=["grid"], grid={**GRID, "counts": [2]})
    assert len(again) == 11
    assert skipped[0].reason.startswith("name taken")


text = st.text(max_size=40)
json_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)
turn = st.fixed_dictionaries(
    {}, optional={"from": st.sampled_from(["human", "gpt", "cat"]) | json_value, "value": text | json_value}
)
any_row = json_value | st.fixed_dictionaries(
    {},
    optional={
        "id": json_value,
        "image": st.sampled_from(["plain/red.png", "plain/none.png", "../x", "a\0b"]) | json_value,
        "conversations": st.lists(turn, max_size=4) | json_value,
        "question": text,
        "answer": text,
    },
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(any_row, max_size=5))
def test_whatever_stands_in_a_row_costs_that_row_at_most(data, strange):
    samples, skipped, _ = run(data, rows=[*data.rows, *strange], formats=["sequence"])
    assert {f"{row['id']}" for row in data.rows} <= {
        sample.source.ids[sample.target].rsplit("-", 1)[0]
        if "-" in sample.source.ids[sample.target]
        else sample.source.ids[sample.target]
        for sample in samples
    }
    assert len(samples) + len(skipped) == len(data.rows) + len(strange)
    assert all(s.reason.split(":")[0] and s.reason for s in skipped)
    for sample in samples:
        assert Sample.model_validate_json(sample.model_dump_json()) == sample
