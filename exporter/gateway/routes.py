"""Which paths are let through to an engine: vLLM's inference surface by name; the administrative one only where opened.

A path is looked up as it stands. One that has to be tidied before it can be compared (`..`, `//`, encoded characters) could mean
another path to the engine than to us, so it never goes on. The names are those of vLLM 0.32's routers, `vllm/entrypoints/`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from exporter.gateway.model import Dialect, Endpoint, Outcome, Refusal

_GET: Final = frozenset({"GET", "HEAD"})
_POST: Final = frozenset({"POST"})
_ANY: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})

MODELS: Final = "/v1/models"
"""Where the models are listed. vLLM has no path for one of them; OpenAI has: `MODEL`."""
MODEL: Final = "/v1/models/{model}"
"""Answered by the gateway itself, see `exporter.gateway.models`: the only path below which anything may follow."""
RESPONSE: Final = "/v1/responses/{id}"
CANCEL: Final = "/v1/responses/{id}/cancel"

_MODEL_PREFIX: Final = MODELS + "/"
_RESPONSE_PREFIX: Final = "/v1/responses/"
_REALTIME: Final = "/v1/realtime"
_ID_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
_SHOWN: Final = 120
"""Characters of a client's path that an answer repeats at most."""

_JSON_PATHS: Final = (
    "/v1/embeddings",
    "/v2/embed",
    "/v1/chat/completions/batch",
    "/v1/chat/completions/render",
    "/v1/chat/completions/derender",
    "/v1/completions/render",
    "/v1/completions/derender",
    "/v1/responses/render",
    "/v1/messages/render",
    "/v1/messages/count_tokens",
    "/v1/systemone",
    "/v1/score",
    "/score",
    "/v1/rerank",
    "/v2/rerank",
    "/rerank",
    "/pooling",
    "/classify",
    "/generative_scoring",
    "/tokenize",
    "/detokenize",
    "/invocations",
    "/inference/v1/generate",
    "/cohere/v2/chat",
    "/cohere/v2/chat/render",
)

OPEN_ENDPOINTS: Final = (
    Endpoint("/v1/chat/completions", Dialect.CHAT, _POST),
    Endpoint("/v1/completions", Dialect.COMPLETION, _POST),
    Endpoint("/v1/responses", Dialect.RESPONSES, _POST),
    Endpoint("/v1/messages", Dialect.MESSAGES, _POST),
    *(Endpoint(path, Dialect.JSON, _POST) for path in _JSON_PATHS),
    Endpoint("/v1/audio/transcriptions", Dialect.OPAQUE, _POST),
    Endpoint("/v1/audio/translations", Dialect.OPAQUE, _POST),
    Endpoint(MODELS, Dialect.OPAQUE, _GET, counted=False),
    *(
        Endpoint(path, Dialect.OPAQUE, methods, counted=False, open=True)
        for path, methods in (
            ("/health", _GET),
            ("/ping", _GET | _POST),
            ("/load", _GET),
            ("/version", _GET),
            ("/metrics", _GET),
        )
    ),
)
"""Let through by default; health, load and metrics without a key, as vLLM does itself whatever its `--api-key`."""

_MODEL_ENDPOINT: Final = Endpoint(MODEL, Dialect.OPAQUE, _GET, counted=False)
# An answer that is asked for again: its tokens were counted when it was made.
_RESPONSE_ENDPOINT: Final = Endpoint(RESPONSE, Dialect.OPAQUE, _GET, counted=False)
_CANCEL_ENDPOINT: Final = Endpoint(CANCEL, Dialect.OPAQUE, _POST, counted=False)

CLOSED: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    dict.fromkeys((
        "/sleep", "/wake_up", "/release_kv_cache_memory", "/scale_elastic_ep", "/is_scaling_elastic_ep",
        "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/start_profile", "/stop_profile", "/collective_rpc",
        "/reset_prefix_cache", "/reset_mm_cache", "/reset_encoder_cache", "/pause", "/resume", "/abort_requests",
        "/inference/v1/abort_requests", "/init_weight_transfer_engine", "/shutdown_weight_transfer_engine",
        "/start_weight_update", "/start_draft_weight_update", "/update_weights", "/finish_weight_update",
        "/update_weight_version", "/weight_checker", "/fault_tolerance/apply",
    ), _POST)
    | dict.fromkeys((
        "/is_sleeping", "/is_paused", "/server_info", "/tokenizer_info", "/get_tokenizer_info", "/weight_info",
        "/get_world_size", "/kv_event_sources", "/fault_tolerance/status", "/docs", "/docs/oauth2-redirect", "/redoc",
        "/openapi.json",
    ), _GET)
)  # fmt: skip
"""vLLM's other paths, with their methods: they change the server, or show how it is made. Each may be opened by name."""


class Routes:
    """The open paths. `opened` are further ones by name, the setting `gateway.routes`."""

    __slots__ = ("_by_path", "_targets")

    def __init__(self, opened: Iterable[str] = ()) -> None:
        endpoints = list(OPEN_ENDPOINTS)
        known = {endpoint.path for endpoint in endpoints}
        for path in dict.fromkeys(opened):
            if path in CLOSED:
                endpoints.append(Endpoint(path, Dialect.OPAQUE, CLOSED[path], counted=False))
            elif path not in known:
                endpoints.append(Endpoint(path, Dialect.OPAQUE, _ANY))
        self._by_path = {endpoint.path: endpoint for endpoint in endpoints}
        self._targets = {
            (method, endpoint.path): endpoint for endpoint in endpoints for method in endpoint.methods
        }

    def find(self, method: str, target: str) -> Endpoint | Refusal:
        """The endpoint of a request by its method and its target in origin-form, with or without a query; or why not."""
        endpoint = self._targets.get((method, target))
        if endpoint is not None:
            return endpoint
        return self._look_closer(method, target.partition("?")[0])

    def _look_closer(self, method: str, path: str) -> Endpoint | Refusal:
        refusal = _irregular(method, path)
        if refusal is not None:
            return refusal
        endpoint = self._by_path.get(path) or _parametrised(path)
        if endpoint is None:
            return self._unknown(method, path)
        if method in endpoint.methods:
            return endpoint
        if method == "OPTIONS":
            return _preflight(endpoint)
        return Refusal(
            405,
            "invalid_request_error",
            "method_not_allowed",
            f"Not allowed to {method[:16]} on {endpoint.path}.",
            Outcome.CLIENT_ERROR,
            allow=endpoint.methods | {"OPTIONS"},
        )

    def _unknown(self, method: str, path: str) -> Refusal:
        if path in CLOSED:
            hint = f'{path} is an administrative route, closed at this gateway; gateway.routes = ["{path}"] opens it.'
            return _not_found("route_closed", hint)
        if path == _REALTIME:
            return _not_found("route_closed", f"{path} is a WebSocket, which this gateway does not relay.")
        bare = path.rstrip("/")
        if bare != path and bare in self._by_path:
            return _not_found(
                "unknown_url",
                f"Unknown request URL: {method[:16]} {path}. It is {bare}, without a slash at the end.",
            )
        shown = path if len(path) <= _SHOWN else path[:_SHOWN] + "…"
        return _not_found(
            "unknown_url", f"Unknown request URL: {method[:16]} {shown}. Please check the URL for typos."
        )


def _preflight(endpoint: Endpoint) -> Endpoint:
    """A browser asks, without a key, what it may send: vLLM's CORS middleware answers that on every path."""
    return Endpoint(endpoint.path, Dialect.OPAQUE, frozenset({"OPTIONS"}), counted=False, open=True)


def _irregular(method: str, path: str) -> Refusal | None:
    """Why a path cannot be compared as it stands; None for an ordinary one, and for a model's, which never goes on."""
    if path == "*":
        return _not_found("unknown_url", "The server as a whole has no options.")
    if path.startswith(_MODEL_PREFIX) and method in _GET:  # a model's name is decoded by us alone
        path = _MODEL_PREFIX + path[len(_MODEL_PREFIX) :].replace("%", "")
    if not path.startswith("/") or "%" in path or "\\" in path or ";" in path or not path.isascii():
        what = "has characters that no route of this server has"
    elif "//" in path or "/./" in path or "/../" in path or path.endswith(("/.", "/..")):
        what = "is not in its normal form"
    elif not path.isprintable() or " " in path or "#" in path:
        what = "has characters that may not stand in one"
    else:
        return None
    return Refusal(
        400, "invalid_request_error", "bad_path", f"The path of the request {what}.", Outcome.CLIENT_ERROR
    )


def _parametrised(path: str) -> Endpoint | None:
    """The endpoint of a path with a name in it."""
    if path.startswith(_MODEL_PREFIX) and len(path) > len(_MODEL_PREFIX):
        return _MODEL_ENDPOINT
    if path.startswith(_RESPONSE_PREFIX):
        name, slash, rest = path[len(_RESPONSE_PREFIX) :].partition("/")
        if name and _ID_CHARACTERS.issuperset(name):
            if not slash:
                return _RESPONSE_ENDPOINT
            if rest == "cancel":
                return _CANCEL_ENDPOINT
    return None


def _not_found(code: str, message: str) -> Refusal:
    return Refusal(404, "invalid_request_error", code, message, Outcome.CLIENT_ERROR)
