"""One request to a daemon's HTTP API, and what is wrong when there is no answer."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from exporter.errors import ExporterError

ANSWER_BYTES = 512 << 20
"""Largest answer that is read."""
_FORM = "application/x-www-form-urlencoded"


class QueryFailed(ExporterError):  # noqa: N818
    """There is no result; the message says why, and what to do."""


def ask(
    url: str, endpoint: str, fields: Mapping[str, str], *, token: str | None, timeout: float
) -> dict[str, Any]:
    """POST a form to `url`/api/v1/`endpoint`, and give the whole answer. `timeout` in seconds for each step.

    Raises:
        QueryFailed: nobody listens, or there is no data.
        ValueError: `url` is none.
    """
    request = _Request("POST", f"/api/v1/{endpoint}", _FORM, urlencode(fields))
    return _answer(url, request, token=token, timeout=timeout)


def ask_of_daemon(
    url: str, endpoint: str, body: Any = None, *, token: str | None, timeout: float
) -> dict[str, Any]:
    """As `ask`: what only our daemon answers; with a `body` it is POSTed in JSON, else the endpoint is read."""
    if body is None:
        request = _Request("GET", f"/api/v1/{endpoint}")
    else:
        request = _Request("POST", f"/api/v1/{endpoint}", "application/json", json.dumps(body))
    return _answer(url, request, token=token, timeout=timeout)


class _Request(NamedTuple):
    method: str
    path: str
    content_type: str = ""
    body: str | None = None


def _answer(url: str, request: _Request, *, token: str | None, timeout: float) -> dict[str, Any]:
    status, body = _exchange(url, request, token=token, timeout=timeout)
    try:
        answer = json.loads(body)
        if answer["status"] == "success":
            return dict(answer)
        message = str(answer["error"])
        kind = str(answer.get("errorType", ""))
    except (ValueError, KeyError, TypeError) as error:
        raise QueryFailed(
            f"{url} answered with status {status} and no Prometheus answer: {body[:200]!r}. "
            "Does --url point at a daemon, or at a Prometheus?"
        ) from error
    if status == 401:
        raise QueryFailed(f"{url} wants a token: give --token-file FILE with the one in web.bearer_token")
    if status == 404 and request.content_type == _FORM:
        raise QueryFailed(f"{url} has no query API: {message}")
    raise QueryFailed(f"{kind}: {message}" if kind else message)


def _exchange(url: str, request: _Request, *, token: str | None, timeout: float) -> tuple[int, bytes]:
    parts = urlsplit(url)
    port = parts.port
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is no URL such as http://127.0.0.1:9108")
    if "@" in parts.netloc:
        raise ValueError("no user and password in the URL: the daemon takes a token, with --token-file")
    connection = (
        http.client.HTTPSConnection(parts.hostname, port, timeout=timeout)
        if parts.scheme == "https"
        else http.client.HTTPConnection(parts.hostname, port, timeout=timeout)
    )
    headers = {"Accept": "application/json"}
    if request.content_type:
        headers["Content-Type"] = request.content_type
    if token:
        headers["Authorization"] = f"Bearer {token}"
    try:
        connection.request(request.method, parts.path.rstrip("/") + request.path, request.body, headers)
        response = connection.getresponse()
        return response.status, response.read(ANSWER_BYTES)
    except TimeoutError as error:
        raise QueryFailed(f"{url} does not answer within {timeout:g} s") from error
    except ssl.SSLCertVerificationError as error:
        raise QueryFailed(
            f"{url}: its certificate cannot be trusted: {error.verify_message}. "
            "Name the file of its authority in the environment variable SSL_CERT_FILE"
        ) from error
    except ConnectionRefusedError as error:
        raise QueryFailed(
            f"nobody listens at {url}. Is `vllm-exporter run` running, and with which --listen? Give it as --url"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise QueryFailed(f"{url} cannot be asked: {error or type(error).__name__}") from error
    finally:
        connection.close()
