"""Answers from a file or a server: read as if the model here had given them."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mia_attention import ScoreSettings, score, score_samples
from mia_attention.settings import AnswerSource
from mia_augment.errors import DataError, MiaError, ModelError
from mia_augment.records import ScoredSample, Skipped
from mia_augment.storage.files import Manifest, read_jsonl, write_jsonl, write_manifest

GENERATED = {"batch_size": 3, "max_new_tokens": 5}


@pytest.fixture
def samples(tiny: SimpleNamespace) -> list[Any]:
    return [
        tiny.sequence("s2", ["a.png", "b.png"], 1),
        tiny.grid("g"),
        tiny.sequence("s3", ["a.png", "b.png", "c.png"], 0),
        tiny.pic_in_pic("p"),
    ]


@pytest.fixture
def folder(tmp_path: Path, tiny: SimpleNamespace, samples: list[Any]) -> Path:
    made = tmp_path / "augmented"
    made.mkdir()
    for name in ("a.png", "b.png", "c.png", "grid.png", "pip.png"):
        tiny.open_image(name).save(made / name)
    write_jsonl(made / "samples.jsonl", samples)
    write_manifest(made, Manifest(stage="augment", version="0", settings={}, inputs={}, image_folders=["."]))
    return made


def generated(tiny: SimpleNamespace, samples: list[Any], **settings: Any) -> list[ScoredSample]:
    made = tiny.build("llava")
    return list(score(samples, made.model, made.processor, ScoreSettings(**GENERATED, **settings), open_image=tiny.open_image))


def stage(tiny: SimpleNamespace, folder: Path, out: Path, source: dict[str, Any], **settings: Any) -> list[ScoredSample]:
    made = tiny.build("llava")
    chosen = ScoreSettings(**GENERATED, **settings, answers=AnswerSource(**source))
    score_samples(folder, made.model, made.processor, out, chosen, model_id="tiny")
    return list(read_jsonl(out / "scored.jsonl", ScoredSample))


def write_answers(path: Path, scored: list[ScoredSample]) -> None:
    path.write_text("".join(json.dumps({"id": one.id, "response_ids": one.response_ids}) + "\n" for one in scored))


@pytest.mark.parametrize("settings", [{}, {"layer": [0, 1], "rows": "predicting"}, {"rows": "question"}, {"layer": "rollout"},
                                      {"layer": "gradient"}, {"layer": "alone"}])  # fmt: skip
def test_a_models_own_answers_from_a_file_are_read_as_it_gave_them(
    tiny: SimpleNamespace, samples: list[Any], folder: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    own = generated(tiny, samples, **settings)
    write_answers(tmp_path / "answers.jsonl", own)
    for one, given in zip(
        own, stage(tiny, folder, tmp_path / "out", {"file": tmp_path / "answers.jsonl"}, **settings), strict=True
    ):
        assert (given.id, given.response, given.response_ids) == (one.id, one.response, one.response_ids)
        assert given.mean_logp == pytest.approx(one.mean_logp, abs=1e-5)
        assert given.perplexity == pytest.approx(one.perplexity, rel=1e-4)
        assert given.attention.region_mass == pytest.approx(one.attention.region_mass, abs=1e-5)
        assert given.attention.ratio == (None if one.attention.ratio is None else pytest.approx(one.attention.ratio, abs=1e-4))


def test_an_answer_as_text_ends_as_the_template_ends_it(
    tiny: SimpleNamespace, folder: Path, tmp_path: Path, samples: list[Any]
) -> None:
    lines = [{"id": sample.id, "response": " a cat "} for sample in samples]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    scored = stage(tiny, folder, tmp_path / "out", {"file": tmp_path / "answers.jsonl"})
    tokenizer = tiny.build("llava").processor.tokenizer
    assert {one.response for one in scored} == {"a cat"}
    assert all(one.response_ids[-1] == tokenizer.eos_token_id for one in scored if one.response_ids)


def test_a_sample_without_an_answer_is_skipped_with_the_reason(
    tiny: SimpleNamespace, samples: list[Any], folder: Path, tmp_path: Path
) -> None:
    write_answers(tmp_path / "answers.jsonl", generated(tiny, samples)[1:])
    assert [one.id for one in stage(tiny, folder, tmp_path / "out", {"file": tmp_path / "answers.jsonl"})] == ["g", "s3", "p"]
    [skipped] = read_jsonl(tmp_path / "out" / "skipped.jsonl", Skipped)
    assert skipped.id == "s2"
    assert "answers.jsonl has no answer to it" in skipped.reason


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "answers none of 4 samples.*no line at all"),
        ('{"id": "other", "response": "a"}\n', "answers none of 4 samples.*'other'"),
        ('{"id": "g", "response": "a"}\n' * 2, "g"),
        ("not json\n", "answers.jsonl"),
    ],
)
def test_a_file_that_is_of_no_use_is_refused(
    tiny: SimpleNamespace, folder: Path, tmp_path: Path, content: str, told: str
) -> None:
    (tmp_path / "answers.jsonl").write_text(content)
    with pytest.raises(DataError, match=told):
        stage(tiny, folder, tmp_path / "out", {"file": tmp_path / "answers.jsonl"})


Handle = Callable[[dict[str, Any]], tuple[int, Any]]


@pytest.fixture
def serve() -> Iterator[Callable[[Handle], SimpleNamespace]]:
    """Starts servers that reply what a function says; each knows how many requests it had, and how many at once."""
    running: list[http.server.ThreadingHTTPServer] = []

    def start(handle: Handle) -> SimpleNamespace:
        seen = SimpleNamespace(requests=[], now=0, most=0, lock=threading.Lock())

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None: ...

            def do_GET(self) -> None:
                self.reply(200, {"object": "list", "data": [{"id": "tiny", "object": "model"}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with seen.lock:
                    seen.requests.append((body, {name.lower(): value for name, value in self.headers.items()}))
                    seen.now += 1
                    seen.most = max(seen.most, seen.now)
                status, answer = handle(body)
                with seen.lock:
                    seen.now -= 1
                if status == 0:
                    self.close_connection = True
                    return
                self.reply(status, answer)

            def reply(self, status: int, answer: Any) -> None:
                html = isinstance(answer, str)
                data = answer.encode() if html else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/html" if html else "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.handle_error = lambda *_: None  # a client that gave up is no news
        running.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        seen.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        return seen

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def completion(
    text: str | None, *, ids: list[int] | None = None, logps: list[float] | None = None, finish: str = "stop"
) -> Any:
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
    if ids is not None:
        choice["token_ids"] = ids
    if logps is not None:
        choice["logprobs"] = {"content": [{"token": "?", "logprob": value, "top_logprobs": []} for value in logps]}
    return {"id": "1", "object": "chat.completion", "created": 1, "model": "tiny", "choices": [choice]}


def replies(own: list[ScoredSample], samples: list[Any], **changes: Any) -> Handle:
    """What the tiny model says itself, by the prompt's last text."""
    by_size = {len(sample.images): one for sample, one in zip(samples, own, strict=True) if sample.format == "sequence"}
    by_question = {sample.prompt.rsplit("<image>", 1)[-1].strip(): one for sample, one in zip(samples, own, strict=True)}

    def handle(body: dict[str, Any]) -> tuple[int, Any]:
        content = body["messages"][0]["content"]
        pictures = sum(part["type"] == "image_url" for part in content)
        one = by_size[pictures] if pictures > 1 else by_question[content[-1]["text"].strip()]
        return 200, completion(one.response, ids=one.response_ids, **changes)

    return handle


def test_answers_of_a_server_are_those_of_generation(
    tiny: SimpleNamespace, samples: list[Any], folder: Path, tmp_path: Path, serve: Any
) -> None:
    own = generated(tiny, samples)
    server = serve(replies(own, samples))
    found = stage(tiny, folder, tmp_path / "out", {"url": server.url, "concurrency": 2})
    assert [one.response_ids for one in found] == [one.response_ids for one in own]
    assert [one.mean_logp for one in found] == pytest.approx([one.mean_logp for one in own], abs=1e-5)
    assert server.most <= 2
    assert len(server.requests) == 4
    body, _headers = server.requests[0]
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("tiny", 0.0, 5)
    urls = [part["image_url"]["url"] for part in body["messages"][0]["content"] if part["type"] == "image_url"]
    assert urls
    assert all(url.startswith("data:image/png;base64,") for url in urls)


def test_the_key_comes_from_the_environment_and_is_written_nowhere(
    tiny: SimpleNamespace, samples: list[Any], folder: Path, tmp_path: Path, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sesame-1234")
    server = serve(replies(generated(tiny, samples), samples))
    stage(tiny, folder, tmp_path / "out", {"url": server.url, "key_variable": "MY_KEY"})
    assert all(headers["authorization"] == "Bearer sesame-1234" for _, headers in server.requests)
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert written
    assert not any(b"sesame" in path.read_bytes() for path in written)


@pytest.mark.parametrize("concurrency", [1, 4])
def test_what_a_server_does_not_take_is_left_out(
    tiny: SimpleNamespace, samples: list[Any], folder: Path, tmp_path: Path, serve: Any, concurrency: int
) -> None:
    own = generated(tiny, samples)
    plain = replies(own, samples)

    def strict(body: dict[str, Any]) -> tuple[int, Any]:
        unknown = {"logprobs", "return_token_ids"} & set(body)
        return (422, {"error": {"message": f"unsupported: {unknown}"}}) if unknown else plain(body)

    found = stage(tiny, folder, tmp_path / "out", {"url": serve(strict).url, "concurrency": concurrency})
    assert [one.response for one in found] == [one.response for one in own]


def test_a_server_that_stumbles_is_asked_again(
    tiny: SimpleNamespace, samples: list[Any], folder: Path, tmp_path: Path, serve: Any
) -> None:
    own, counted = generated(tiny, samples), iter(range(100))
    plain = replies(own, samples)

    def stumbling(body: dict[str, Any]) -> tuple[int, Any]:
        turn = next(counted)
        return {0: (0, None), 1: (503, {"error": {"message": "busy"}})}.get(turn) or plain(body)

    found = stage(tiny, folder, tmp_path / "out", {"url": serve(stumbling).url, "concurrency": 1})
    assert [one.response for one in found] == [one.response for one in own]


def test_a_prompt_that_is_refused_for_good_costs_its_sample_alone(
    tiny: SimpleNamespace, samples: list[Any], folder: Path, tmp_path: Path, serve: Any
) -> None:
    plain = replies(generated(tiny, samples), samples)

    def picky(body: dict[str, Any]) -> tuple[int, Any]:
        pictures = sum(part["type"] == "image_url" for part in body["messages"][0]["content"])
        return (400, {"error": {"message": "at most 2 images"}}) if pictures == 3 else plain(body)

    found = stage(tiny, folder, tmp_path / "out", {"url": serve(picky).url, "retries": 0})
    assert [one.id for one in found] == ["s2", "g", "p"]
    [skipped] = read_jsonl(tmp_path / "out" / "skipped.jsonl", Skipped)
    assert skipped.id == "s3"
    assert "HTTP 400" in skipped.reason
    assert "at most 2 images" in skipped.reason


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        ((200, "<html>Welcome to nginx</html>"), "expected a chat completion, got '<html>Welcome"),
        ((401, {"error": {"message": "no key"}}), "HTTP 401: .*no key"),
        ((404, {"error": {"message": "no such model"}}), "HTTP 404: .*answers.model"),
        ((0, None), "no server answers there"),
        ((200, {"object": "chat.completion", "choices": []}), "expected a chat completion"),
    ],
)
def test_what_is_no_such_server_stops_the_run_with_one_clear_error(
    tiny: SimpleNamespace, folder: Path, tmp_path: Path, serve: Any, reply: Any, told: str
) -> None:
    with pytest.raises(ModelError, match=told):
        stage(tiny, folder, tmp_path / "out", {"url": serve(lambda _: reply).url, "retries": 0})


def test_no_server_at_all(tiny: SimpleNamespace, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"127.0.0.1:9/v1: no server answers there"):
        stage(tiny, folder, tmp_path / "out", {"url": "http://127.0.0.1:9/v1", "retries": 0})


def test_a_slow_server_costs_the_sample_and_says_so(tiny: SimpleNamespace, folder: Path, tmp_path: Path, serve: Any) -> None:
    wait = threading.Event()
    server = serve(lambda _: (wait.wait(5), (200, completion("late")))[1])
    with pytest.raises(MiaError, match=r"did not answer within 0\.2 s, 1 times"):
        stage(tiny, folder, tmp_path / "out", {"url": server.url, "retries": 0, "timeout": 0.2})
    wait.set()


@pytest.mark.parametrize("logps", [None, [-0.01] * 5])
def test_another_model_on_the_server_is_told_by_its_answers(
    tiny: SimpleNamespace, samples: list[Any], folder: Path, tmp_path: Path, serve: Any, logps: list[float] | None
) -> None:
    own = generated(tiny, samples)
    ids = [max(own[0].response_ids or [5]) - 1] * 5
    server = serve(lambda _: (200, completion("words of another model", ids=ids, logps=logps)))
    with pytest.raises(ModelError, match="the server's answer is not this model's: it says 'words of another model'"):
        stage(tiny, folder, tmp_path / "out", {"url": server.url})
    assert len(stage(tiny, folder, tmp_path / "more", {"url": server.url, "same_model": False})) == 4


def test_answers_about_parts_alone_come_from_the_server_too(
    tiny: SimpleNamespace, samples: list[Any], folder: Path, tmp_path: Path, serve: Any
) -> None:
    own = generated(tiny, samples)
    plain = replies(own, samples)
    alone = tiny.build("llava").processor.tokenizer

    def handle(body: dict[str, Any]) -> tuple[int, Any]:
        text = body["messages"][0]["content"][-1]["text"].strip()
        return (200, completion("a dog", ids=alone("a dog").input_ids)) if text == "what is on the left ?" else plain(body)

    found = stage(tiny, folder, tmp_path / "out", {"url": serve(handle).url}, confusions=True)
    assert {one.own_answer for one in found} == {"a dog"}
    assert all(told in (None, "a dog") for one in found for told in one.confusions or [])


def test_a_number_that_the_model_has_no_token_for_is_refused(
    tiny: SimpleNamespace, samples: list[Any], folder: Path, tmp_path: Path
) -> None:
    lines = [{"id": sample.id, "response": "x", "response_ids": [10**6]} for sample in samples]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(DataError, match="token id 1000000"):
        stage(tiny, folder, tmp_path / "out", {"file": tmp_path / "answers.jsonl"})


def test_a_server_that_leaves_out_the_end_of_an_answer_gets_it_put_behind(
    tiny: SimpleNamespace, folder: Path, tmp_path: Path, serve: Any
) -> None:
    tokenizer = tiny.build("llava").processor.tokenizer
    ids = tokenizer("a cat").input_ids
    for reason, end in (("stop", [tokenizer.eos_token_id]), ("length", [])):
        server = serve(lambda _, reason=reason: (200, completion("a cat", ids=ids, finish=reason)))
        source = {"url": server.url, "same_model": False}
        assert [one.response_ids for one in stage(tiny, folder, tmp_path / reason, source)] == [[*ids, *end]] * 4


def test_the_likelihood_of_an_own_answer_that_no_server_told_is_unknown(
    tiny: SimpleNamespace, folder: Path, tmp_path: Path, serve: Any
) -> None:
    server = serve(lambda _: (200, completion("a cat")))
    found = stage(tiny, folder, tmp_path / "out", {"url": server.url, "same_model": False}, own_answer=True)
    assert [one.own_answer for one in found] == ["a cat"] * 4
    assert {one.own_mean_logp for one in found} == {None}


def test_log_probs_of_other_tokens_do_not_pass_for_a_comparison(
    tiny: SimpleNamespace, folder: Path, tmp_path: Path, serve: Any
) -> None:
    server = serve(lambda _: (200, completion("cat cat cat cat", logps=[-0.1] * 99)))
    with pytest.raises(ModelError, match="the server's answer is not this model's"):
        stage(tiny, folder, tmp_path / "out", {"url": server.url})
