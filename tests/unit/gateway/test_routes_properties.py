"""Whatever a target is made of, what goes on to an engine is a path that we know, letter by letter."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from exporter.gateway.model import Endpoint, Refusal
from exporter.gateway.routes import CANCEL, CLOSED, MODEL, OPEN_ENDPOINTS, RESPONSE, Routes

ROUTES = Routes()
KNOWN = {endpoint.path: endpoint for endpoint in OPEN_ENDPOINTS}
ODD = [
    "/",
    "//",
    ".",
    "..",
    "/..",
    "%2e",
    "%2F",
    "%",
    "?",
    "#",
    ";",
    "\\",
    "ä",
    "*",
    "V1",
    "a",
    "http://h",
    "sleep",
    "health",
]
PIECES = st.sampled_from(
    [*KNOWN, *CLOSED, *ODD, "/v1/responses/", "/v1/models/", " ", "\t", "\r\n", "\0", "x" * 300]
)
TARGETS = st.lists(PIECES, max_size=6).map("".join) | st.text(max_size=30) | st.text().map("/v1/{}".format)
METHODS = st.sampled_from(["GET", "HEAD", "POST", "OPTIONS", "DELETE", "CONNECT", "PRI", "get", "X" * 50])


@given(METHODS, TARGETS)
def test_only_known_paths_go_on(method: str, target: str) -> None:
    answer = ROUTES.find(method, target)
    path = target.partition("?")[0]
    if isinstance(answer, Refusal):
        assert answer.status in (400, 404, 405)
        assert len(answer.message) < 400
        assert (answer.status == 405) == bool(answer.allow)
        return
    assert method in answer.methods
    assert isinstance(answer, Endpoint)
    if answer.path in (MODEL, RESPONSE, CANCEL):
        assert ".." not in path.split("/")
        assert "//" not in path
        assert path.isascii()
        assert "%" not in path or (answer.path == MODEL and method in ("GET", "HEAD"))
    else:
        assert path == answer.path
    assert path not in CLOSED


@given(TARGETS)
def test_what_is_found_does_not_hang_on_the_query(target: str) -> None:
    path = target.partition("?")[0]
    for method in ("GET", "POST"):
        bare, with_query = ROUTES.find(method, path), ROUTES.find(method, path + "?x=1")
        assert bare == with_query
