"""What takes long is done beside the event loop."""

from __future__ import annotations

import json
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest
from multidict import MultiDict

from exporter.notify.outbox.model import Silence
from exporter.notify.silences import Silences
from exporter.storage.model import Matcher
from exporter.web.alertmanager import shown
from exporter.web.alertmanager.api import Api, Call

NOW = 1_700_000_000.0


def api_of(silences: int) -> Api:
    known = Silences(clock=lambda: NOW)
    known.restore(
        Silence(f"id{number}", (Matcher("a", "=", f"{number}"),), NOW - 1, NOW + 1, NOW, "me", "why")
        for number in range(silences)
    )
    alerting = SimpleNamespace(dispatcher=SimpleNamespace(silences=known))
    return Api(cast("Any", alerting), lambda: NOW)


@pytest.mark.parametrize(("count", "in_loop"), [(20, True), (2000, False)])
async def test_many_silences_are_put_into_words_in_a_thread(
    monkeypatch: pytest.MonkeyPatch, count: int, in_loop: bool
) -> None:
    threads: set[int] = set()
    real = shown.silence

    def watched(one: Silence, now: float) -> dict[str, Any]:
        threads.add(threading.get_ident())
        return real(one, now)

    monkeypatch.setattr(shown, "silence", watched)
    answer = await api_of(count).silences(Call(MultiDict()))
    assert len(json.loads(b"".join(answer.pieces))) == count
    assert (threads == {threading.get_ident()}) is in_loop
    (one,) = json.loads(b"".join((await api_of(count).silences(Call(MultiDict(filter='a="7"')))).pieces))
    assert one["id"] == "id7"
