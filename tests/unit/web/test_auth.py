from __future__ import annotations

import pytest
from pydantic import SecretStr

from exporter.web.auth import BearerToken


def test_without_a_token_everybody_is_welcome() -> None:
    token = BearerToken(None)
    assert not token.required
    assert token.accepts(None)
    assert token.accepts("Bearer anything")


@pytest.mark.parametrize("header", ["Bearer s3cret-é", "bearer s3cret-é", "BEARER  s3cret-é "])
def test_the_right_token_is_accepted_whatever_the_case_of_the_scheme(header: str) -> None:
    assert BearerToken(SecretStr("s3cret-é")).accepts(header)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer s3cre",
        "Bearer s3crets",
        "Basic s3cret",
        "s3cret",
        "Bearer \udcff",
    ],
)
def test_anything_else_is_refused(header: str | None) -> None:
    assert not BearerToken(SecretStr("s3cret")).accepts(header)
