"""Keys are known by their digests, whatever header they come in."""

from __future__ import annotations

import pytest

from exporter.gateway.admission.limits import Limits
from exporter.gateway.keys.check import Keys
from exporter.gateway.keys.key import Key, asked_priority, digest, new_key
from exporter.gateway.model import Outcome, Priority, Refusal

SECRET = new_key()
TEAM = Key("team", (digest(SECRET.encode()),), models=frozenset({"llama"}))
KEYS = Keys([TEAM])


def bearer(key: str) -> bytes:
    return b"Bearer " + key.encode()


def refused(authorization: bytes | None, api_key: bytes | None = None) -> Refusal:
    answer = KEYS.check(authorization, api_key)
    assert isinstance(answer, Refusal)
    assert (answer.status, answer.kind, answer.outcome) == (
        401,
        "invalid_request_error",
        Outcome.CLIENT_ERROR,
    )
    assert SECRET not in answer.message
    return answer


@pytest.mark.parametrize(
    "header",
    [
        bearer(SECRET),
        b"bearer " + SECRET.encode(),
        b"BEARER   " + SECRET.encode() + b" ",
        b" " + bearer(SECRET),
    ],
)
def test_a_good_key_is_known(header: bytes) -> None:
    assert KEYS.check(header) is TEAM


def test_anthropics_header_counts_where_there_is_no_other() -> None:
    assert KEYS.check(None, SECRET.encode()) is TEAM
    assert KEYS.check(b"", SECRET.encode()) is TEAM
    assert refused(bearer("sk-wrong"), SECRET.encode()).code == "invalid_api_key"
    assert refused(None, b"sk-wrong").code == "invalid_api_key"


@pytest.mark.parametrize("header", [None, b"", b"  ", b"Bearer", b"Bearer ", b"Bearer   "])
def test_without_a_key_a_client_is_told_how_to_give_one(header: bytes | None) -> None:
    refusal = refused(header)
    assert refusal.code == "missing_api_key"
    assert "Authorization: Bearer YOUR_KEY" in refusal.message


@pytest.mark.parametrize(
    "header",
    [
        bearer(SECRET[:-1]),
        bearer(SECRET + "x"),
        bearer(SECRET.swapcase()),
        b"Basic " + SECRET.encode(),
        SECRET.encode(),
        b"Bearer" + SECRET.encode(),
        b"Bearer " + digest(SECRET.encode()),
        b"Bearer " + digest(SECRET.encode()).hex().encode(),
        b"Bearer \xff\xfe",
    ],
)
def test_anything_else_is_wrong_and_is_not_repeated(header: bytes) -> None:
    assert refused(header).code == "invalid_api_key"


def test_new_keys_are_long_differ_and_look_like_keys() -> None:
    made = {new_key() for _ in range(50)}
    assert len(made) == 50
    assert all(key.startswith("sk-") and len(key) == 46 for key in made)


def test_no_repr_shows_a_digest() -> None:
    assert TEAM.digests[0].hex() not in repr(TEAM)
    assert repr(TEAM.digests[0]) not in repr(TEAM)


def test_keys_are_replaced_at_once() -> None:
    keys = Keys([TEAM])
    other = new_key()
    keys.replace([Key("b", (digest(other.encode()), digest(b"next")))])
    assert isinstance(keys.check(bearer(SECRET)), Refusal)
    assert keys.check(bearer(other)) is keys.check(b"Bearer next") is keys.named("b")
    assert keys.named("team") is None
    assert keys.named(None) is None
    assert len(keys) == 1


def test_a_key_has_what_admission_looks_at() -> None:
    limits: Limits = TEAM
    assert (limits.name, limits.requests_per_minute, limits.priority) == ("team", None, Priority.INTERACTIVE)
    assert TEAM.may_use("llama")
    assert not TEAM.may_use("qwen")
    assert Key("free").may_use("qwen")


@pytest.mark.parametrize(
    ("value", "priority"),
    [
        (b"batch", Priority.BATCH),
        (b" Batch ", Priority.BATCH),
        (b"interactive", Priority.INTERACTIVE),
        (b"high", None),
        (b"", None),
        (b"\xff", None),
    ],
)
def test_a_client_asks_for_a_priority_by_its_name(value: bytes, priority: Priority | None) -> None:
    assert asked_priority(value) is priority
