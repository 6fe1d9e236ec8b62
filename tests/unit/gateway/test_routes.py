"""Only named paths go through, and only as they stand."""

from __future__ import annotations

import pytest

from exporter.gateway.model import Dialect, Endpoint, Outcome, Refusal
from exporter.gateway.routes import CANCEL, CLOSED, MODEL, OPEN_ENDPOINTS, RESPONSE, Routes
from exporter.settings import GatewaySettings

ROUTES = Routes()


def found(method: str, target: str, routes: Routes = ROUTES) -> Endpoint:
    answer = routes.find(method, target)
    assert isinstance(answer, Endpoint), answer
    return answer


def refused(method: str, target: str, routes: Routes = ROUTES) -> Refusal:
    answer = routes.find(method, target)
    assert isinstance(answer, Refusal), answer
    assert answer.outcome is Outcome.CLIENT_ERROR
    return answer


@pytest.mark.parametrize(
    ("path", "dialect"),
    [
        ("/v1/chat/completions", Dialect.CHAT),
        ("/v1/completions", Dialect.COMPLETION),
        ("/v1/responses", Dialect.RESPONSES),
        ("/v1/messages", Dialect.MESSAGES),
        ("/v1/messages/count_tokens", Dialect.JSON),
        ("/v1/embeddings", Dialect.JSON),
        ("/v2/embed", Dialect.JSON),
        ("/tokenize", Dialect.JSON),
        ("/invocations", Dialect.JSON),
        ("/v1/audio/transcriptions", Dialect.OPAQUE),
    ],
)
def test_the_inference_surface_is_open_counted_and_needs_a_key(path: str, dialect: Dialect) -> None:
    endpoint = found("POST", path)
    assert (endpoint.path, endpoint.dialect, endpoint.counted, endpoint.open) == (path, dialect, True, False)


@pytest.mark.parametrize("path", ["/health", "/ping", "/load", "/version", "/metrics"])
def test_health_and_metrics_need_no_key_and_are_not_among_the_users_requests(path: str) -> None:
    endpoint = found("GET", path)
    assert endpoint.open
    assert not endpoint.counted
    assert endpoint.dialect is Dialect.OPAQUE


def test_a_query_does_not_matter_and_goes_on_unread() -> None:
    assert found("POST", "/v1/chat/completions?api-version=1&x=//../%2e") is found(
        "POST", "/v1/chat/completions"
    )
    assert found("GET", "/health?").path == "/health"


@pytest.mark.parametrize("path", sorted(CLOSED))
def test_administrative_routes_are_closed_with_a_hint_and_open_by_name(path: str) -> None:
    refusal = refused("POST", path)
    assert (refusal.status, refusal.code) == (404, "route_closed")
    assert f'gateway.routes = ["{path}"]' in refusal.message
    opened = Routes(GatewaySettings(routes=(path,)).routes)
    method = next(iter(CLOSED[path]))
    endpoint = found(method, path, opened)
    assert (endpoint.dialect, endpoint.counted, endpoint.open) == (Dialect.OPAQUE, False, False)


def test_a_route_that_nobody_knows_can_be_opened_by_name_and_counts() -> None:
    routes = Routes(("/v1/my_plugin", "/health", "/v1/my_plugin"))
    for method in ("GET", "POST", "DELETE"):
        assert found(method, "/v1/my_plugin", routes).counted
    assert found("GET", "/health", routes).open
    assert refused("POST", "/v1/my_plugin/x", routes).status == 404


@pytest.mark.parametrize(
    "target",
    [
        "/v1/../sleep",
        "/v1/..",
        "/..",
        "/./health",
        "/v1/.",
        "//v1/chat/completions",
        "/v1//chat/completions",
        "/v1/chat%2Fcompletions",
        "/v1/chat/completions%00",
        "/%73leep",
        "/v1/models/../../sleep",
        "/v1/models//x",
        "/v1/models/x/../y",
        "/v1\\chat\\completions",
        "/v1/chat/completions;v=1",
        "/v1/chat/completions#x",
        "/v1/chat completions",
        "/v1/chat/compl\x7fetions",
        "/v1/chät",
        "v1/chat/completions",
        "",
        "?x=/health",
        "http://host/health",
    ],
)
def test_a_path_that_has_to_be_tidied_first_is_refused(target: str) -> None:
    refusal = refused("GET", target)
    assert (refusal.status, refusal.code) == (400, "bad_path")


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/V1/chat/completions",
        "/v1/chat",
        "/v1/realtime",
        "/admin",
        "*",
        "/v1/models/",
        "/v1/chat/completions/",
    ],
)
def test_an_unknown_path_is_not_found(target: str) -> None:
    assert refused("GET", target).status == 404


def test_a_slash_too_many_and_a_websocket_are_named() -> None:
    assert "It is /v1/chat/completions, without a slash" in refused("POST", "/v1/chat/completions/").message
    assert "WebSocket" in refused("GET", "/v1/realtime").message


def test_what_a_client_wrote_is_repeated_only_in_part() -> None:
    assert len(refused("G" * 5000, "/" + "x" * 5000).message) < 300
    assert len(refused("G" * 5000, "/health").message) < 300


def test_another_method_is_told_which_there_are() -> None:
    refusal = refused("GET", "/v1/chat/completions")
    assert (refusal.status, refusal.code) == (405, "method_not_allowed")
    assert refusal.allow == {"POST", "OPTIONS"}
    assert refused("POST", "/health").allow == {"GET", "HEAD", "OPTIONS"}
    assert refused("post", "/v1/completions").status == 405  # methods are case-sensitive
    assert found("HEAD", "/health").path == "/health"


def test_a_browser_may_ask_first_without_a_key() -> None:
    for path in ("/v1/chat/completions", "/v1/responses/resp_1/cancel"):
        endpoint = found("OPTIONS", path)
        assert endpoint.open
        assert not endpoint.counted
    assert refused("OPTIONS", "/sleep").status == 404
    assert refused("OPTIONS", "/v1/models/%2e%2e").status == 400


def test_a_model_is_asked_for_by_any_name_and_answered_here() -> None:
    for target in (
        "/v1/models/tiny",
        "/v1/models/org/name",
        "/v1/models/org%2Fname",
        "/v1/models/a%20b?x=1",
        "/v1/models/v1.5",
    ):
        endpoint = found("GET", target)
        assert endpoint.path == MODEL
        assert not endpoint.open
    assert refused("DELETE", "/v1/models/tiny").status == 405


def test_a_response_is_asked_for_by_a_plain_id() -> None:
    assert found("GET", "/v1/responses/resp_0a-B").path == RESPONSE
    assert found("POST", "/v1/responses/resp_0a/cancel").path == CANCEL
    assert found("POST", "/v1/responses/render").path == "/v1/responses/render"
    for target in ("/v1/responses/", "/v1/responses/a.b", "/v1/responses/a/b", "/v1/responses/a/cancel/b"):
        assert refused("POST", target).status == 404
    assert refused("POST", "/v1/responses/resp_1").status == 405


def test_labels_are_names_of_ours() -> None:
    names = {endpoint.path for endpoint in OPEN_ENDPOINTS}
    assert len(names) == len(OPEN_ENDPOINTS)
    assert not names & set(CLOSED)
