from __future__ import annotations

import json
from typing import Any

import pytest

from exporter.simulator import text
from exporter.simulator.openai_api import (
    Answer,
    ApiError,
    GenerationRequest,
    StopText,
    frame,
    parse_request,
)


def parse(body: object, *, chat: bool = False) -> GenerationRequest:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse_request(data, chat=chat, models=("m", "alias"), max_model_len=64)


def refused(body: object, *, chat: bool = False) -> dict[str, Any]:
    with pytest.raises(ApiError) as caught:
        parse(body, chat=chat)
    error: dict[str, Any] = caught.value.body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == caught.value.status
    return error


def test_a_completion_takes_a_prompt_as_text_or_tokens_and_gives_sixteen_tokens_by_default() -> None:
    assert parse({"prompt": "hello world"}).prompt == tuple(text.tokenize("hello world"))
    assert parse({"prompt": [1, 2, 3]}).prompt == (1, 2, 3)
    assert parse({"prompt": ["hello"]}).prompt_text == "hello"
    assert parse({"prompt": "hello"}).max_tokens == 16
    assert parse({"prompt": "hello"}).model == "m"


def test_a_chat_may_fill_the_context_unless_told_otherwise() -> None:
    wanted = parse({"messages": [{"role": "user", "content": [{"type": "text", "text": "你好"}]}]}, chat=True)
    assert len(wanted.prompt) + wanted.max_tokens == 64
    assert wanted.prompt_text == "你好"
    limited = parse({"messages": [{"role": "user", "content": "x"}], "max_completion_tokens": 3}, chat=True)
    assert limited.max_tokens == 3


@pytest.mark.parametrize(
    ("body", "chat", "code", "kind", "words"),
    [
        (b"{nope", False, 400, "Bad Request", "JSON decode error"),
        (b"[]", False, 400, "Bad Request", "dictionary"),
        ({"model": "other", "prompt": "x"}, False, 404, "NotFoundError", "The model `other` does not exist. Valid aliases: m, alias."),
        ({}, False, 400, "BadRequestError", "prompt"),
        ({"prompt": ""}, False, 400, "BadRequestError", "empty"),
        ({"prompt": ["a", "b"]}, False, 400, "BadRequestError", "Several prompts"),
        ({"prompt": [-1]}, False, 400, "BadRequestError", "vocabulary"),
        ({"prompt": "x", "max_tokens": 0}, False, 400, "BadRequestError", "at least 1"),
        ({"prompt": "x", "max_tokens": "5"}, False, 400, "Bad Request", "valid integer"),
        ({"prompt": "x", "max_tokens": True}, False, 400, "Bad Request", "valid integer"),
        ({"prompt": "x", "max_tokens": 64}, False, 400, "BadRequestError", "maximum context length is 64"),
        ({"prompt": "x", "max_tokens": 65}, False, 400, "BadRequestError", "cannot be greater than max_model_len=64"),
        ({"prompt": "x " * 99}, False, 400, "BadRequestError", "no room for any output"),
        ({"prompt": "x", "n": 2}, False, 400, "BadRequestError", "one choice"),
        ({"prompt": "x", "logprobs": 1}, False, 400, "BadRequestError", "simulated"),
        ({"prompt": "x", "stop": [""]}, False, 400, "BadRequestError", "empty string"),
        ({"prompt": "x", "stop": 3}, False, 400, "Bad Request", "stop"),
        ({"prompt": "x", "stream_options": {"include_usage": True}}, False, 400, "BadRequestError", "stream=True"),
        ({}, True, 400, "Bad Request", "Field required"),
        ({"messages": []}, True, 400, "BadRequestError", "empty conversation"),
        ({"messages": [{"content": "x"}]}, True, 400, "Bad Request", "role"),
    ],
)  # fmt: skip
def test_a_bad_request_is_answered_in_the_form_of_vllm(
    body: object, chat: bool, code: int, kind: str, words: str
) -> None:
    error = refused(body, chat=chat)
    assert (error["code"], error["type"]) == (code, kind)
    assert words in error["message"]


def test_a_stop_string_ends_the_reply_before_itself_even_across_tokens() -> None:
    watch = StopText(["END", "\n\n"])
    assert watch.feed("some E") == ("some ", False)
    assert watch.feed("N") == ("", False)
    assert watch.feed("OUGH") == ("ENOUGH", False)
    assert watch.feed(" EN") == (" ", False)
    assert watch.feed("D of it") == ("", True)
    assert watch.found == "END"


def test_what_was_held_back_is_shown_when_no_stop_string_came() -> None:
    watch = StopText(["END"])
    assert watch.feed("xEN") == ("x", False)
    assert watch.flush() == "EN"
    assert StopText([]).feed("END") == ("END", False)


def test_a_stream_is_made_of_single_line_events() -> None:
    answer = Answer(parse({"prompt": "x", "stream": True}), "1", 0)
    event = frame(answer.token_chunk("a\nb 模型", 1, None, None))
    assert event.startswith(b"data: {")
    assert event.endswith(b"}\n\n")
    assert event.count(b"\n") == 2
    assert json.loads(event[6:])["choices"][0]["text"] == "a\nb 模型"


def test_usage_counts_prompt_and_reply() -> None:
    answer = Answer(parse({"prompt": [1, 2, 3]}), "1", 0)
    assert answer.whole("abc", 5, "length", None)["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 5,
        "total_tokens": 8,
        "prompt_tokens_details": None,
    }


def test_the_same_text_is_the_same_tokens_and_a_reply_sent_back_is_its_own() -> None:
    assert text.tokenize("Hello 世界!") == text.tokenize("Hello 世界!")
    assert len(text.tokenize("世界")) == 2
    write = text.author(7, "hello")
    numbers = [write(i) for i in range(200)]
    assert numbers == [text.author(7, "hello")(i) for i in range(200)]
    assert len(set(numbers)) > 20
    assert text.tokenize("".join(map(text.text_of, numbers))) == numbers


def test_a_reply_is_in_the_language_of_the_question() -> None:
    write = text.author(1, "请解释")
    assert all("\u3000" <= text.text_of(write(i)) <= "\uffff" for i in range(50))
