"""What bodies ask for, read as the engine reads them, and the body that asks for the counts as well."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.gateway.model import Dialect
from exporter.gateway.reading.request import UNREAD, Asked, read_request, with_usage

WITH_OPTIONS = (Dialect.CHAT, Dialect.COMPLETION)
WITHOUT_OPTIONS = (Dialect.RESPONSES, Dialect.MESSAGES, Dialect.JSON, Dialect.OPAQUE)

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(), v, max_size=3), max_leaves=8
)
members = st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from(["a", "Qwen/Qwen3-0.6B", ""]) | values,
        "messages": values,
        "stream": st.booleans() | values,
        "stream_options": st.fixed_dictionaries(
            {}, optional={"include_usage": st.booleans() | st.none() | values, "x": values}
        )
        | values,
        "max_tokens": values,
        "temperature": values,
    },
)


def test_a_request_is_read_for_model_and_stream() -> None:
    body = b'{"messages":[{"role":"user","content":"hi"}],"model":"Qwen/Qwen3-0.6B","max_tokens":16,"stream":true}'
    assert read_request(body) == Asked("Qwen/Qwen3-0.6B", stream=True)


@pytest.mark.parametrize("body", [b"", b"[]", b'"model"', b"null", b'{"model":', b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_object_asks_for_nothing_and_goes_on_as_it_is(body: bytes) -> None:
    asked = read_request(body)
    assert asked is UNREAD
    assert with_usage(body, asked, Dialect.CHAT) is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","model":"b"}',
        b'{"model":"a","mod\\u0065l":"b"}',
        b'{"model":"b","temperature":NaN}',
        b'{"model":"b","temperature":Infinity}',
        b'{"model":"b","user":"\\ud800"}',
        b'\xef\xbb\xbf{"model":"b"}',
        '{"model":"b"}'.encode("utf-16"),
        '{"model":"b"}'.encode("utf-32-le"),
        b'{"MODEL":"a","model":"b"}',
        b'{"model":"b","x":{"model":"a"}}',
        b' \r\n\t{"model" : "b"}\n',
    ],
)
def test_the_model_is_the_one_that_the_engine_will_take(body: bytes) -> None:
    """A key that may use one model must not reach another by a body that two parsers read in two ways."""
    assert json.loads(body)["model"] == "b"
    assert read_request(body).model == "b"


@pytest.mark.parametrize("model", ["null", '""', "7", "[]", "{}"])
def test_a_model_that_is_no_name_is_none(model: str) -> None:
    assert read_request(f'{{"model":{model}}}'.encode()).model is None


def test_a_name_with_half_a_surrogate_pair_can_still_be_written_down() -> None:
    name = read_request(b'{"model":"\\ud800"}').model
    assert name == "\\ud800"
    name.encode()


@pytest.mark.parametrize("stream", ["true", "1", "1.0", '"true"', '"on"', '"Yes"'])
def test_a_stream_is_what_the_engine_takes_for_one(stream: str) -> None:
    assert read_request(f'{{"stream":{stream}}}'.encode()).stream


@pytest.mark.parametrize("stream", ["false", "null", "0", "2", '"false"', "[]", '""'])
def test_and_no_stream_what_it_does_not(stream: str) -> None:
    assert not read_request(f'{{"stream":{stream}}}'.encode()).stream


def test_counts_are_asked_for_before_the_closing_brace_and_nothing_else_is_touched() -> None:
    body = b'{"model":"a", "stream":true,"seed":1.00}\r\n'
    asked = read_request(body)
    assert (
        with_usage(body, asked, Dialect.CHAT)
        == b'{"model":"a", "stream":true,"seed":1.00,"stream_options":{"include_usage":true}}\r\n'
    )


@pytest.mark.parametrize("dialect", WITHOUT_OPTIONS)
def test_other_dialects_are_left_alone(dialect: Dialect) -> None:
    body = b'{"model":"a","stream":true}'
    assert with_usage(body, read_request(body), dialect) is None


@pytest.mark.parametrize(
    "options",
    [
        '{"include_usage":true}',
        '{"include_usage":true,"continuous_usage_stats":true}',
        '{"include_usage":"yes"}',
        '{"include_usage":7}',
    ],
)
def test_a_client_that_asks_itself_gets_what_it_asked_for(options: str) -> None:
    body = f'{{"stream":true,"stream_options":{options}}}'.encode()
    asked = read_request(body)
    assert asked.include_usage
    assert bytes(asked.stream_options) == options.encode()
    assert with_usage(body, asked, Dialect.CHAT) is None


@pytest.mark.parametrize("options", ['"x"', "7", "[]", "true", "false", '{"continuous_usage_stats":"x"}'])
def test_options_that_the_engine_refuses_are_left_for_it_to_refuse(options: str) -> None:
    body = f'{{"stream":true,"stream_options":{options}}}'.encode()
    assert with_usage(body, read_request(body), Dialect.CHAT) is None


def test_options_without_a_stream_are_left_for_the_engine_to_refuse() -> None:
    body = b'{"stream_options":{"include_usage":false}}'
    assert with_usage(body, read_request(body), Dialect.CHAT) is None


@pytest.mark.parametrize(
    ("own", "merged"),
    [
        ("null", {"include_usage": True}),
        ("{}", {"include_usage": True}),
        ('{"include_usage":false,"x":[1]}', {"include_usage": True, "x": [1]}),
        ('{"include_usage":null}', {"include_usage": True}),
        # Without include_usage the engine ignores this one; with it every chunk would carry counts.
        ('{"continuous_usage_stats":true}', {"include_usage": True, "continuous_usage_stats": False}),
    ],
)
def test_own_options_are_kept_and_the_counts_added(own: str, merged: dict[str, Any]) -> None:
    body = f'{{"stream":true,"stream_options":{own},"temperature":0.10}}'.encode()
    changed = with_usage(body, read_request(body), Dialect.CHAT)
    assert changed is not None
    assert json.loads(changed) == {"stream": True, "stream_options": merged, "temperature": 0.1}
    assert changed.startswith(body[:-1])


@pytest.mark.parametrize(
    "body",
    [
        b'{"stream":true,"temperature":NaN}',
        b'{"stream":1}',
        b'\xef\xbb\xbf{"stream":true}',
        b'{"stream":true,"user":"\\ud800"}',
        '{"stream":true}'.encode("utf-16"),
        '{"stream":true}'.encode("utf-32-be"),
        '{"stream":true,"stream_options":{"include_usage":false}}'.encode("utf-16-le"),
        b'{"stream":true,"stream_options":{},"x":NaN}',
    ],
)
def test_odd_bodies_that_the_engine_takes_do_not_escape_the_counting(body: bytes) -> None:
    changed = with_usage(body, read_request(body), Dialect.COMPLETION)
    assert changed is not None
    assert json.loads(changed)["stream_options"]["include_usage"] is True


LARGE = b'"x":[' + b"[]," * 3_000_000 + b"[]]"
"""Nine megabytes that take Python's json a second, and hundreds of megabytes of memory."""


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        (b'{"stream":1,"model":"a",%b}', Asked("a", stream=True)),
        (b'{"stream":"true","model":"a",%b}', Asked("a", stream=True)),
        (b'{"stream":true,"model":"a","y":NaN,%b}', UNREAD),
        (b'{"stream":1,"stream_options":{%b}}', UNREAD),
        (b'{"stream":1,"model":{%b}}', UNREAD),
    ],
    ids=["stream", "word", "NaN", "options", "model"],
)
def test_a_large_odd_body_is_read_as_far_as_that_is_cheap(body: bytes, asked: Asked) -> None:
    started = time.process_time()
    assert read_request(body % LARGE) == asked
    assert time.process_time() - started < 0.4


def test_large_options_are_left_for_the_engine_to_refuse() -> None:
    body = b'{"stream":true,"stream_options":{%b}}' % LARGE
    started = time.process_time()
    assert with_usage(body, read_request(body), Dialect.CHAT) is None
    assert time.process_time() - started < 0.4


def test_a_large_body_with_options_of_its_own_is_not_taken_apart() -> None:
    body = (
        b'{"stream":true,"stream_options":{"include_usage":false},"x":{' + b'"y":0,' * 1_000_000 + b'"y":0}}'
    )
    started = time.process_time()
    changed = with_usage(body, read_request(body), Dialect.CHAT)
    assert time.process_time() - started < 0.4
    assert changed == body[:-1] + b',"stream_options":{"include_usage": true}}'


@given(members, st.sampled_from(WITH_OPTIONS), st.booleans())
def test_only_stream_options_ever_change(body: dict[str, Any], dialect: Dialect, ascii_only: bool) -> None:
    try:
        sent = json.dumps(body, ensure_ascii=ascii_only).encode()
    except UnicodeEncodeError:
        sent = json.dumps(body).encode()
    asked = read_request(sent)
    model = body.get("model")
    assert asked.model == (model if isinstance(model, str) and model else None) or "\\u" in repr(asked.model)
    changed = with_usage(sent, asked, dialect)
    if changed is None:
        return
    before, after = json.loads(sent), json.loads(changed)
    options = after.pop("stream_options")
    own = before.pop("stream_options", None) or {}
    assert json.dumps(before) == json.dumps(after)
    assert options["include_usage"] is True
    assert own.get("include_usage") in (None, False)
    assert {**own, **options} == options or "nan" in repr(own)


@given(st.binary(max_size=60), st.sampled_from(list(Dialect)))
def test_no_bytes_at_all_make_it_fail(body: bytes, dialect: Dialect) -> None:
    with_usage(body, read_request(body), dialect)
