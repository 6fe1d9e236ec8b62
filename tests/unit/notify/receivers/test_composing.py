"""Messages are made where they delay nothing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from exporter.notify.config.model import Endpoint
from exporter.notify.config.receivers import EmailOptions
from exporter.notify.model import Context, Notification, Receiver
from exporter.notify.receivers import composing
from exporter.notify.receivers.build import build

pytest.importorskip("apprise")


@pytest.mark.parametrize(("count", "in_loop"), [(3, True), (1000, False)])
async def test_the_message_of_a_storm_is_made_beside_the_loop(
    count: int,
    in_loop: bool,
    start: Any,
    reach: Callable[..., Receiver],
    make_alert: Any,
    make_notification: Callable[..., Notification],
    context: Context,
    unused_tcp_port: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: list[int] = []
    real = composing.compose

    def watched(*arguments: Any, **more: Any) -> Any:
        threads.append(threading.get_ident())
        return real(*arguments, **more)

    monkeypatch.setattr(composing, "compose", watched)
    endpoint = await start()
    values = {"from": "a@example.org", "to": "b@example.org", "smarthost": f"127.0.0.1:{unused_tcp_port}"}
    options = EmailOptions.model_validate(values)
    receivers = [reach(kind, endpoint.url) for kind in ("slack", "telegram", "pagerduty")]
    receivers.append(build(Endpoint("people", "email[0]", "email", True, options)))
    alerts = [make_alert(labels=(("alertname", "A"), ("n", str(n)))) for n in range(count)]
    await asyncio.gather(*(receiver.send(make_notification(*alerts), context) for receiver in receivers))
    assert len(threads) == len(receivers)
    assert (set(threads) == {threading.get_ident()}) is in_loop
    assert in_loop or threading.get_ident() not in threads
