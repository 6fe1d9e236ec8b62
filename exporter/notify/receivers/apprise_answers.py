"""What servers really answered to apprise, code and Retry-After, which its plugins say in their own ways or not at all.

Nearly all of them send by `requests`, whose lowest step is listened to here, thread by thread. A plugin that speaks another
protocol, or HTTP by another library, is not heard: its log is all there is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple


class Head(NamedTuple):
    """The head of one answer; `code` None: none came. `retry_after` is the header as it came."""

    code: int | None
    retry_after: str = ""

    @property
    def is_good(self) -> bool:
        """Whether it says that the request was taken."""
        return self.code is not None and 200 <= self.code < 300


_listening: ContextVar[list[Head] | None] = ContextVar("listening", default=None)


@contextmanager
def heard(heads: list[Head]) -> Iterator[None]:
    """What comes to this thread's requests meanwhile is added to the list, in order."""
    _listen()
    token = _listening.set(heads)
    try:
        yield
    finally:
        _listening.reset(token)


@cache
def _listen() -> None:
    """Once, for good: a step that is put in place and taken away again would be in other threads' way."""
    adapter: Any = import_module("requests.adapters").HTTPAdapter
    send = adapter.send

    def listened(self: Any, *args: Any, **more: Any) -> Any:
        heads = _listening.get()
        if heads is None:
            return send(self, *args, **more)
        try:
            response = send(self, *args, **more)
        except Exception:
            heads.append(Head(None))
            raise
        heads.append(Head(response.status_code, response.headers.get("Retry-After", "")))
        return response

    adapter.send = listened
