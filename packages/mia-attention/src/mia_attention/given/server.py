"""Answers from an OpenAI-compatible server."""

from __future__ import annotations

import base64
import io
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from mia_augment import ConfigError, DataError, ModelError
from mia_augment.prompting import plain_content, user_message
from PIL import Image

from mia_attention.answering.batches import Prompt
from mia_attention.given.said import Said
from mia_attention.settings import AnswerSource

logger = logging.getLogger(__name__)

OpenView = Callable[[Any], list[Image.Image]]
"""From a prompt to its pictures as the model sees them."""

ASKED_BESIDES: tuple[dict[str, Any], ...] = (
    {"logprobs": True, "extra_body": {"return_token_ids": True}},
    {"logprobs": True},
    {},
)
"""What is asked for besides the answer, most first: servers differ in what they take, and some refuse what they do not know."""


KEPT = 8192
"""Replies that are kept, so that a batch that is halved does not ask again."""


class ServerAnswers:
    """Asks a server, at most `concurrency` prompts at a time; a request that fails for good costs its own prompt alone."""

    asks = True

    def __init__(self, source: AnswerSource, processor: Any, open_view: OpenView, max_new_tokens: int) -> None:
        """Look up the server's model.

        Raises:
            ConfigError: the extra is not installed, or the server serves no or several models and none is named.
            ModelError: nobody answers there, or what answers is no such server.
        """
        self.reach = source.concurrency
        self._source = source
        self._processor = processor
        self._open_view = open_view
        self._max_new_tokens = max_new_tokens
        self._client = _client(source)
        self._model = _model_name(self._client, source)
        self._level = 0
        self._pool = ThreadPoolExecutor(source.concurrency, thread_name_prefix="ask")
        self._asked: dict[str, Future[Said]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._client.close()

    def ahead(self, prompts: Sequence[Prompt]) -> None:
        """Send these prompts, as soon as a place is free."""
        for prompt in prompts:
            if prompt.id not in self._asked:
                self._asked[prompt.id] = self._pool.submit(self._ask, prompt)
        while len(self._asked) > KEPT and next(iter(self._asked.values())).done():
            del self._asked[next(iter(self._asked))]

    def said(self, prompt: Prompt) -> Said:
        """The answer to a prompt, waited for.

        Raises:
            DataError: its pictures cannot be opened, or the server did not answer it.
            ModelError: the server answers nothing at all, or not as such a server does.
        """
        self.ahead([prompt])
        return self._asked[prompt.id].result()

    def _ask(self, prompt: Prompt) -> Said:
        content = message_content(self._processor, prompt.prompt, self._open_view(prompt))
        reply = self._reply([{"role": "user", "content": content}])
        return _read(reply, self._source)

    def _reply(self, messages: list[dict[str, Any]]) -> Any:
        """The server's reply, with as much besides as it gives."""
        from openai import APIStatusError

        for level in range(self._level, len(ASKED_BESIDES)):
            try:
                reply = self._send(messages, ASKED_BESIDES[level])
            except APIStatusError as error:
                if error.status_code in (400, 422) and ASKED_BESIDES[level]:
                    continue  # the prompt, or what is asked for besides? the next try tells
                raise _refused(error) from None
            self._level = max(self._level, level)
            return reply
        raise AssertionError("the last of ASKED_BESIDES asks for nothing")

    def _send(self, messages: list[dict[str, Any]], extras: dict[str, Any]) -> Any:
        from openai import APIConnectionError, APITimeoutError

        try:
            return self._client.chat.completions.create(
                model=self._model, messages=messages, temperature=0.0, max_tokens=self._max_new_tokens, **extras
            )
        except APITimeoutError:
            tries = self._source.retries + 1
            raise DataError(f"the server did not answer within {self._source.timeout:g} s, {tries} times") from None
        except APIConnectionError as error:
            raise ModelError(_nobody(self._source, error)) from None


def message_content(processor: Any, prompt: str, pictures: Sequence[Image.Image]) -> list[dict[str, Any]]:
    """The content of the chat message that a server is sent: texts and pictures (PNG in data URLs) in the prompt's order.

    Where the model's template would move pictures to the front, they come first, and the text holds the processor's own
    tokens in their places.
    """
    content = plain_content(user_message(processor, prompt)["content"])
    urls = [{"type": "image_url", "image_url": {"url": data_url(picture)}} for picture in pictures]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not any(part["type"] == "image" for part in parts):
        return [*urls, *parts]
    left = iter(urls)
    return [next(left) if part["type"] == "image" else part for part in parts]


def data_url(picture: Image.Image) -> str:
    """A picture as a PNG within a URL, pixel for pixel."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _client(source: AnswerSource) -> Any:
    try:
        from openai import OpenAI
    except ImportError as error:
        raise ConfigError("answers from a server need the extra: pip install 'mia-attention[server]'") from error
    key = os.environ.get(source.key_variable) or "none"
    return OpenAI(base_url=source.url, api_key=key, timeout=source.timeout, max_retries=source.retries)


def _model_name(client: Any, source: AnswerSource) -> str:
    """The model's name on the server."""
    from openai import APIConnectionError, APIStatusError, OpenAIError

    if source.model is not None:
        return source.model
    try:
        served = [model.id for model in client.with_options(max_retries=0).models.list().data]
    except APIConnectionError as error:
        raise ModelError(_nobody(source, error)) from None
    except APIStatusError as error:
        told = f"expected the list of models, got HTTP {error.status_code}"
        raise ModelError(f"{source.url}: {told}; name the model with answers.model, or {_HOW}") from None
    except (OpenAIError, AttributeError, TypeError, ValueError):
        raise ModelError(f"{source.url}: expected the list of models, got something else; {_HOW}") from None
    if len(served) != 1:
        raise ConfigError(f"{source.url}: serves {', '.join(served) or 'no model'}; name one with answers.model")
    return str(served[0])


_HOW = "give the address of an OpenAI-compatible server with its version, such as http://127.0.0.1:8000/v1"


def _nobody(source: AnswerSource, error: Exception) -> str:
    return f"{source.url}: no server answers there ({error.__cause__ or error}); start it, or correct answers.url"


def _refused(error: Any) -> DataError | ModelError:
    """The whole run cannot go on without the right address, name and key; any other refusal concerns one prompt."""
    told = " ".join(str(error.message).split())[:300]
    if error.status_code in (401, 403, 404):
        return ModelError(f"the server refuses with HTTP {error.status_code}: {told}; check answers.url and answers.model")
    return DataError(f"the server refuses it with HTTP {error.status_code}: {told}")


def _read(reply: Any, source: AnswerSource) -> Said:
    choices = getattr(reply, "choices", None)
    if not choices:
        got = " ".join(str(reply).split())[:120]
        raise ModelError(f"{source.url}: expected a chat completion, got {got!r}; {_HOW}")
    choice = choices[0]
    text = choice.message.content
    if not isinstance(text, str):
        raise DataError(f"the server answered without text (finish_reason {choice.finish_reason!r})")
    ids = getattr(choice, "token_ids", None)
    tokens = getattr(choice.logprobs, "content", None) if choice.logprobs else None
    return Said(
        text.strip(),
        tuple(ids) if ids else None,
        ended=choice.finish_reason != "length",
        logps=tuple(token.logprob for token in tokens) if tokens else None,
    )
