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
        "no such team: T000",
        "no such channel: B000",
        "bad key k%2by%2fz",
        '{"path":"\\/services\\/T000\\/B000\\/abcdefghij"}',
        "<p>cannot POST /services/T000/B000/abcdefghij?key=k%2By%2Fz&amp;x=1</p>",
    ],
)
def test_parts_of_the_address_are_masked(said: str) -> None:
    answer = Masker(urls=[URL]).answer(said.encode())
    assert "<secret>" in answer
    for secret in ("abcdefghij", "k+y/z", "k%2By%2Fz", "hunter22", "T000", "B000"):
        assert secret.lower() not in answer.lower()


@pytest.mark.parametrize(
    "said",
    [
        "a&b<c/d",
        "a&amp;b&lt;c/d",
        "a%26b%3Cc%2Fd",
        "a%26b%3cc%2fd",
        "a%26b%3Cc/d",
        "a&b<c\\/d",
        "a&amp;b&lt;c\\/d",
    ],
)
def test_a_secret_is_masked_as_urls_pages_and_php_write_it(said: str) -> None:
    assert Masker(["a&b<c/d"]).answer(f"bad key {said}!".encode()) == "bad key <secret>!"


def test_a_token_that_stands_before_the_host_alone_is_masked() -> None:
    masker = Masker(urls=["https://tok3n1234@hooks.example.org/in"])
    assert masker.answer(b"no user tok3n1234 here") == "no user <secret> here"


def test_words_of_a_path_may_be_shown() -> None:
    assert Masker(urls=["https://h/hook/T024/in"]).answer(b"no hook T024") == "no hook <secret>"


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
