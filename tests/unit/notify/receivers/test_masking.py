"""No answer shows a secret, however the server repeats it."""

from __future__ import annotations

import pytest

from exporter.notify.receivers.masking import Masker, basic

URL = "https://user:hunter22@hooks.example.org:8443/services/T000/B000/abcdefghij?key=k%2By%2Fz&x=1"


@pytest.mark.parametrize(
    "said",
    [
        f"cannot POST {URL}",
        "cannot POST /services/T000/B000/abcdefghij?key=k%2By%2Fz&x=1",
        "no such hook: abcdefghij",
        '{"path": "/services/T000/B000/abcdefghij"}',
        "bad key k+y/z",
        "bad key k%2By%2Fz",
        "password hunter22 is wrong",
    ],
)
def test_parts_of_the_address_are_masked(said: str) -> None:
    answer = Masker(urls=[URL]).answer(said.encode())
    assert "<secret>" in answer
    for secret in ("abcdefghij", "k+y/z", "k%2By%2Fz", "hunter22"):
        assert secret not in answer


def test_the_host_may_be_shown() -> None:
    assert Masker(urls=[URL]).answer(b"hooks.example.org says no") == "hooks.example.org says no"


def test_secrets_are_masked_as_they_are_and_as_headers_json_and_forms_write_them() -> None:
    mask = Masker(['to"ken/1', basic("u", "p")])
    said = mask.answer(b'to"ken/1 to\\"ken/1 to%22ken%2F1 Basic dTpw')
    assert said == "<secret> <secret> <secret> Basic <secret>"


def test_a_secret_that_the_reading_cut_in_two_is_not_shown_by_half() -> None:
    assert Masker(["supersecret"]).answer(b"you sent supersec", whole=False) == "you sent <secret>"
    assert Masker(["supersecret"]).answer(b"you sent supersec") == "you sent supersec"


def test_an_answer_is_one_line_of_500_characters_without_control_characters() -> None:
    answer = Masker().answer(b"a\r\n\x1b[31m b\x00" + b"x" * 2000)
    assert answer.startswith("a [31m b x")
    assert len(answer) == 500


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    assert Masker().answer(b"\xff\xfe ok") == "\ufffd\ufffd ok"


def test_a_page_without_path_makes_no_mask_of_every_slash() -> None:
    assert Masker(urls=["http://h:1/"]).answer(b"a/b http://h:1/") == "a/b <secret>"
