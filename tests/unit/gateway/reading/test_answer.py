"""The counts of whole answers, also of those too large to be kept."""

from __future__ import annotations

import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.gateway.model import Dialect, Endpoint, Exchange
from exporter.gateway.reading.answer import ANSWER_LIMIT, AnswerReader
from exporter.gateway.reading.usage import TAIL_LIMIT, note_from_tail

CAPTURES = Path(__file__).parent / "captures"


def an_exchange() -> Exchange:
    return Exchange(Endpoint("/v1/some", Dialect.JSON, frozenset()), "POST", "0123", "127.0.0.1", 0.0)


def counts(*parts: bytes) -> tuple[int | None, int | None]:
    exchange = an_exchange()
    reader = AnswerReader(exchange)
    for part in parts:
        reader.feed(part)
    reader.end()
    return exchange.input_tokens, exchange.output_tokens


@pytest.mark.parametrize(
    ("name", "expected"),
    [("chat", (33, 4)), ("completion", (4, 4)), ("responses", (21, 4)), ("messages", (33, 4))],
)
def test_vllms_answers_tell_their_counts(name: str, expected: tuple[int, int]) -> None:
    answer = (CAPTURES / f"{name}-whole.json").read_bytes()
    assert counts(answer) == expected
    assert counts(*(answer[i : i + 7] for i in range(0, len(answer), 7))) == expected


def test_embeddings_have_input_tokens_only() -> None:
    assert counts(b'{"data":[],"usage":{"prompt_tokens":9,"total_tokens":9,"completion_tokens":0}}') == (9, 0)
    assert counts(b'{"data":[],"usage":{"prompt_tokens":9,"total_tokens":9}}') == (9, None)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"[]",
        b"{",
        b"{}",
        b'{"usage":null}',
        b'{"usage":[]}',
        b'{"usage":{}}',
        b'{"usage":{"prompt_tokens":-1,"completion_tokens":true}}',
        b'{"usage":{"prompt_tokens":"7","completion_tokens":1.5}}',
        b'{"usage":{"prompt_tokens":1000000000000000000000}}',
        b'{"error":{"message":"x","usage":{"prompt_tokens":1}}}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_what_is_no_count_leaves_the_exchange_as_it_was(answer: bytes) -> None:
    assert counts(answer) == (None, None)


@pytest.mark.parametrize("size", [1000, 65536, 64 << 20])
def test_the_end_of_a_large_answer_is_enough(size: int) -> None:
    answer = (
        b'{"data":"'
        + b"a" * (3 * ANSWER_LIMIT)
        + b'","usage":{"prompt_tokens":9,"completion_tokens":8},"metrics":null}'
    )
    assert counts(*(answer[i : i + size] for i in range(0, len(answer), size))) == (9, 8)


def test_memory_is_bounded_however_long_the_answer() -> None:
    reader = AnswerReader(an_exchange())
    tracemalloc.start()
    try:
        for _ in range(1024):
            reader.feed(bytes(65536))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * ANSWER_LIMIT


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        (b'aaa","usage" : {"prompt_tokens": 9}, "x": [1]}', (9, None)),
        (b'"usage":{"prompt_tokens":9},"x":{"usage":null}}', (9, None)),
        (b'"usage":{"prompt_tokens":9},"choices":[{"usage":7}]}', (9, None)),
        (b'\\"usage\\":{\\"prompt_tokens\\":1}"}', (None, None)),
        (b'"usage":{"prompt_tokens":', (None, None)),
        (b'"usage":{"prompt_tokens":' + b"9" * 40 + b"}", (None, None)),
        (b'"usage":{"prompt_tokens":' + b"9" * 5000 + b"}", (None, None)),
        (b'"usage":{"prompt_tokens":"\\ud800","completion_tokens":8}', (None, 8)),
        (b'"usage"', (None, None)),
        (b'"usage":' + b"[" * 60_000, (None, None)),
        (b'\x80\xff","usage":{"input_tokens":9,"output_tokens":8}}', (9, 8)),
    ],
)
def test_a_tail_is_searched_from_its_end(tail: bytes, expected: tuple[int | None, int | None]) -> None:
    exchange = an_exchange()
    note_from_tail(exchange, tail)
    assert (exchange.input_tokens, exchange.output_tokens) == expected


def test_a_tail_full_of_keys_holds_nobody_up() -> None:
    exchange = an_exchange()
    began = time.process_time()
    note_from_tail(exchange, b'"usage":[' * (TAIL_LIMIT // 9))
    assert exchange.input_tokens is None
    assert time.process_time() - began < 1.0


@given(st.text(), st.integers(0, 1 << 40), st.dictionaries(st.text(), st.text(), max_size=3))
def test_words_of_the_model_are_never_taken_for_counts(words: str, tokens: int, more: dict[str, Any]) -> None:
    said = {"text": words + '"usage":{"prompt_tokens":666}', **more}
    answer = json.dumps({"usage": {"prompt_tokens": tokens}, "said": said}).encode()
    exchange = an_exchange()
    note_from_tail(exchange, answer)
    assert exchange.input_tokens == tokens
