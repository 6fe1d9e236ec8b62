"""The models of all engines in one list, each as its own engine tells it."""

from __future__ import annotations

import json

import pytest

from exporter.gateway.keys.key import Key
from exporter.gateway.model import Endpoint, Exchange, Refusal
from exporter.gateway.models import Models, read_cards
from exporter.gateway.routes import Routes

LLAMA = '{"id":"llama","object":"model","created":1,"owned_by":"vllm","root":"/m/llama","max_model_len":8192,"permission":[{"id":"p-1"}]}'
ADAPTER = '{"id":"org/ad ä","object":"model","parent":"llama","root":"/a"}'
QWEN = '{ "object": "model", "id": "qwen", "max_model_len": 1e3 }'


def document(*cards: str) -> bytes:
    return ('{"object": "list", "data": [' + " , ".join(cards) + "]}").encode()


def asked(target: str, method: str = "GET", key: str | None = None) -> tuple[Exchange, str]:
    endpoint = Routes().find(method, target)
    assert isinstance(endpoint, Endpoint)
    exchange = Exchange(endpoint, method, "id", "127.0.0.1", 0.0)
    exchange.key = key
    return exchange, target


def two() -> Models:
    keys = {"narrow": Key("narrow", models=frozenset({"qwen"})), "wide": Key("wide")}
    models = Models(["a", "b"], lambda name: keys.get(name or ""))
    assert models.learn("b", document(QWEN, LLAMA.replace("8192", "1"))) == ("qwen", "llama")
    assert models.learn("a", document(LLAMA, ADAPTER)) == ("llama", "org/ad ä")
    return models


def listed(models: Models, key: str | None = None) -> list[str]:
    body = models.answer(*asked("/v1/models", key=key))
    assert isinstance(body, bytes)
    answer = json.loads(body)
    assert answer["object"] == "list"
    return [card["id"] for card in answer["data"]]


def test_several_engines_models_are_one_list_each_as_its_engine_wrote_it() -> None:
    models = two()
    assert listed(models) == ["llama", "org/ad ä", "qwen"]
    body = models.answer(*asked("/v1/models?x"))
    assert body == f'{{"object":"list","data":[{LLAMA},{ADAPTER},{QWEN}]}}'.encode()
    assert models.names == ("llama", "org/ad ä", "qwen")


def test_one_model_is_found_by_its_name_however_it_is_written() -> None:
    models = two()
    assert models.answer(*asked("/v1/models/llama")) == LLAMA.encode()
    for target in ("/v1/models/org%2Fad%20%C3%A4", "/v1/models/org/ad%20%c3%a4?y=%2F"):
        assert models.answer(*asked(target)) == ADAPTER.encode()
    assert models.answer(*asked("/v1/models/qwen", "HEAD")) == QWEN.encode()


def test_a_model_that_nobody_serves_is_not_found_in_openais_words() -> None:
    for name in ("nope", "%2e%2e/%2e%2e/sleep", "LLAMA"):
        refusal = two().answer(*asked(f"/v1/models/{name}"))
        assert isinstance(refusal, Refusal)
        assert (refusal.status, refusal.code) == (404, "model_not_found")


def test_a_key_sees_the_models_that_it_may_use() -> None:
    models = two()
    assert listed(models, "narrow") == ["qwen"]
    assert listed(models, "wide") == ["llama", "org/ad ä", "qwen"]
    assert isinstance(models.answer(*asked("/v1/models/llama", key="narrow")), Refusal)
    assert models.answer(*asked("/v1/models/qwen", key="narrow")) == QWEN.encode()


def test_a_single_engine_lists_its_models_itself_unless_the_key_sees_only_some() -> None:
    narrow = Key("narrow", models=frozenset({"qwen"}))
    models = Models(["a"], lambda name: narrow if name else None)
    models.learn("a", document(LLAMA, QWEN))
    assert models.answer(*asked("/v1/models")) is None
    assert listed(models, "narrow") == ["qwen"]
    assert models.answer(*asked("/v1/models/llama")) == LLAMA.encode()


def test_before_an_engine_has_listed_its_models_nothing_is_claimed() -> None:
    models = Models(["a", "b"])
    assert models.answer(*asked("/v1/models")) is None
    refusal = models.answer(*asked("/v1/models/llama"))
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.retry_after) == (503, 5.0)


def test_an_engine_that_is_gone_takes_only_its_own_models_with_it() -> None:
    models = two()
    models.forget("a")
    models.forget("never heard of")
    assert listed(models) == ["qwen", "llama"]
    card = models.answer(*asked("/v1/models/llama"))
    assert isinstance(card, bytes)
    assert json.loads(card)["max_model_len"] == 1


def test_what_is_learnt_anew_replaces_what_was_known() -> None:
    models = two()
    models.learn("a", document(LLAMA))
    assert listed(models) == ["llama", "qwen"]


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b'{"data": 5}', b'{"data": [5]}', b'{"data": [{"id": 5}]}', b"[" * 9999, b"\xff"],
)
def test_another_document_is_no_list_and_changes_nothing(body: bytes) -> None:
    models = two()
    with pytest.raises(ValueError, match="no list of models"):
        models.learn("a", body)
    assert listed(models) == ["llama", "org/ad ä", "qwen"]


def test_entries_without_a_name_or_named_twice_do_not_count() -> None:
    assert list(read_cards(document('{"id":""}', QWEN, QWEN.replace("1e3", "2")))) == ["qwen"]


def test_what_is_asked_of_engines_is_left_to_them() -> None:
    models = two()
    for target in ("/health", "/v1/responses/resp_1"):
        assert models.answer(*asked(target)) is None
    assert models.answer(*asked("/v1/models/llama", "OPTIONS")) is None
