from __future__ import annotations

import json

import pytest
from mia_augment.errors import DataError
from mia_augment.read import json_values
from mia_augment.read.dataset import Row, read_rows
from mia_augment.records import Skipped


def talk(*texts: str) -> list[dict[str, str]]:
    return [{"from": "gpt" if i % 2 else "human", "value": text} for i, text in enumerate(texts)]


GOOD = {"id": "1", "image": "coco/1.jpg", "conversations": talk("<image>\nWhat is it?", "A dog.")}
ROW = Row(id="1", image="coco/1.jpg", turns=(("What is it?", "A dog."),))


def read(tmp_path, content, name="rows.json"):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return list(read_rows(path))


def only(tmp_path, **changes):
    row = {**GOOD, **changes}
    (result,) = read(tmp_path, [{k: v for k, v in row.items() if v is not ...}])
    return result


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_is_read(tmp_path, separators, indent):
    assert read(tmp_path, json.dumps([GOOD, GOOD], indent=indent, separators=separators)) == [ROW, ROW]


def test_jsonl_is_read_whatever_its_name(tmp_path):
    assert read(tmp_path, json.dumps(GOOD) + "\n\n" + json.dumps(GOOD), name="rows.txt") == [ROW, ROW]


def test_a_byte_order_mark_is_no_problem(tmp_path):
    assert read(tmp_path, "\ufeff" + json.dumps([GOOD])) == [ROW]


def test_a_folder_is_read_in_the_order_of_names(tmp_path):
    (tmp_path / "b.json").write_text(json.dumps([{**GOOD, "id": "b"}]))
    (tmp_path / "a.jsonl").write_text(json.dumps({**GOOD, "id": "a"}))
    (tmp_path / "notes.txt").write_text("not data")
    assert [row.id for row in read_rows(tmp_path)] == ["a", "b"]


def test_rows_longer_than_a_chunk_and_split_anywhere_are_read(tmp_path, monkeypatch):
    rows = [{**GOOD, "id": n, "conversations": talk('<image>\nWhat "is" \\ it é 日本?', "x" * n)} for n in range(1, 40)]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    whole = list(read_rows(path))
    for size in (1, 2, 3, 7, 64):
        monkeypatch.setattr(json_values, "CHUNK", size)
        assert list(read_rows(path)) == whole
    assert [len(row.turns[0][1]) for row in whole] == list(range(1, 40))


def test_an_empty_array_has_no_rows(tmp_path):
    assert read(tmp_path, " [ ] ") == []


def test_a_file_that_breaks_off_keeps_the_rows_before(tmp_path):
    text = json.dumps([GOOD, {**GOOD, "id": "2"}])
    first, broken = read(tmp_path, text[:-40])
    assert first == ROW
    assert broken.reason.startswith("bad row: rows.json breaks off in or before its row 2")
    without_bracket = read(tmp_path, text[:-1])
    assert [row.id for row in without_bracket[:1]] == ["1"]
    assert isinstance(without_bracket[-1], Skipped)


def test_a_damaged_row_costs_itself_alone(tmp_path):
    rows = [json.dumps({**GOOD, "id": str(n)}) for n in range(5)]
    rows[2] = rows[2].replace('"image": ', '"image" ')
    read_back = read(tmp_path, "[" + ",\n".join(rows) + "]")
    assert [row.id for row in read_back] == ["0", "1", "row-3", "3", "4"]
    assert "row 3 of rows.json is not valid JSON" in read_back[2].reason


@pytest.mark.parametrize("monster", ["1" * 5000, "[" * 100_000 + "]" * 100_000])
def test_a_value_that_no_parser_takes_costs_its_row_alone(tmp_path, monster):
    rows = [json.dumps(GOOD), json.dumps(GOOD).replace('"1"', monster), json.dumps(GOOD)]
    for text in ("[" + ",".join(rows) + "]", "\n".join(rows)):
        first, broken, last = read(tmp_path, text)
        assert (first, last) == (ROW, ROW)
        assert broken.reason.startswith("bad row: ")


@pytest.mark.parametrize("key", ["id", "image", "conversations"])
def test_deep_nesting_is_refused(tmp_path, key):
    for depth in (50, 500, 900, 950, 990):
        deep = json.dumps(GOOD).replace(json.dumps(GOOD[key]), "[" * depth + "]" * depth)
        _, result, _ = read(tmp_path, "[" + ",".join([json.dumps(GOOD), deep, json.dumps(GOOD)]) + "]")
        assert result.reason.split(":")[0] in ("bad row", "no image")


def test_a_damaged_line_of_jsonl_costs_itself_alone(tmp_path):
    lines = [json.dumps(GOOD), '{"id": 3, ', json.dumps(GOOD)]
    first, broken, last = read(tmp_path, "\n".join(lines))
    assert (first, last) == (ROW, ROW)
    assert broken.reason.startswith("bad row: line 2 of rows.json is not valid JSON")


def test_other_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        list(read_rows(tmp_path / "none.json"))
    with pytest.raises(DataError, match="is empty"):
        read(tmp_path, " \n")
    with pytest.raises(DataError, match="begins with 'id,image"):
        read(tmp_path, "id,image\n1,a.jpg")
    (tmp_path / "sub").mkdir()
    with pytest.raises(DataError, match="found none"):
        list(read_rows(tmp_path / "sub"))


def test_int_ids_become_text_and_missing_ones_the_row_number(tmp_path):
    assert only(tmp_path, id=33471).id == "33471"
    assert only(tmp_path, id=...).id == "row-1"


@pytest.mark.parametrize("first", ["What is it?\n<image>", "<image> What is it?", "What is it?", "What is it?<image>"])
def test_the_placeholder_may_stand_anywhere_or_be_missing(tmp_path, first):
    assert only(tmp_path, conversations=talk(first, "A dog.")) == ROW


def test_all_turns_are_kept(tmp_path):
    row = only(tmp_path, conversations=talk("<image>\nWhat is it?", "A dog.", "Its color?", "Brown."))
    assert row.turns == (("What is it?", "A dog."), ("Its color?", "Brown."))


def test_a_system_turn_is_no_question(tmp_path):
    turns = [{"from": "system", "value": "Be brief."}, *talk("What is it?", "A dog.")]
    assert only(tmp_path, conversations=turns) == ROW


def test_chat_messages_and_flat_rows_are_understood(tmp_path):
    content = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    messages = [{"role": "user", "content": content}, {"role": "assistant", "content": [{"type": "text", "text": "A dog."}]}]
    assert only(tmp_path, conversations=..., messages=messages) == ROW
    assert only(tmp_path, conversations=..., question="What is it?", answer="A dog.") == ROW
    assert only(tmp_path, conversations=..., question="How many?", answer=3).turns == (("How many?", "3"),)
    assert only(tmp_path, image=["coco/1.jpg"]) == ROW


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image": ...}, "no image: the row has text only"),
        ({"image": None}, "no image"),
        ({"image": ""}, "no image"),
        ({"image": 7}, "bad row: expected the path of a picture as image, got int 7"),
        ({"image": ["a.jpg", "b.jpg"]}, "several images: the row has 2"),
        ({"image": "a\0.jpg"}, "bad row: the path"),
        ({"image": "\ud800.jpg"}, "bad row: the path"),
        ({"id": ["x"]}, "bad row: expected a text or a number as id"),
        ({"conversations": ...}, "bad row: expected conversations"),
        ({"conversations": []}, "no answer: the conversation is empty"),
        ({"conversations": "What?"}, "bad row: expected a list of turns"),
        ({"conversations": ["What?", "That."]}, "bad row: expected an object with from and value as turn 1"),
        ({"conversations": talk("What is it?")}, "no answer: turn 1"),
        ({"conversations": talk("What is it?", "A dog.", "And?")}, "no answer: turn 3"),
        ({"conversations": talk("What is it?", "  ")}, "no answer: answer 1 is empty"),
        ({"conversations": talk("<image>\n", "A dog.")}, "no question: question 1 is empty"),
        ({"conversations": [{"from": "gpt", "value": "A dog."}]}, "bad row: expected questions and answers in turn"),
        ({"conversations": [{"from": "cat", "value": "Miau"}]}, "bad row: expected turn 1 to be from human or gpt, got 'cat'"),
        ({"conversations": [{"from": "human", "value": {"a": 1}}]}, "bad row: expected a text as turn 1"),
        ({"conversations": talk("<image><image>\nSame?", "No.")}, "several images: <image> stands 2 times"),
        ({"conversations": talk("What do these two images share?", "All.")}, "several images: a question"),
        ({"conversations": talk("What is it?", "A dog.", "Which image is brighter?", "This.")}, "several images: a question"),
    ],
)
def test_unusable_rows_are_skipped_with_a_reason(tmp_path, changes, reason):
    skipped = only(tmp_path, **changes)
    assert isinstance(skipped, Skipped)
    assert skipped.reason.startswith(reason)


@pytest.mark.parametrize("value", [None, 3, "text", [1, 2], True])
def test_values_that_are_no_rows_are_skipped(tmp_path, value):
    good, skipped = read(tmp_path, [GOOD, value])
    assert good == ROW
    assert skipped.id == "row-2"
    assert skipped.reason.startswith("bad row: expected an object")


def test_half_an_emoji_is_replaced(tmp_path):
    assert only(tmp_path, conversations=talk("What is it \ud83d?", "A dog.")).turns[0][0] == "What is it ??"
