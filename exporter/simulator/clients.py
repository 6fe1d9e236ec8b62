"""`vllm-exporter simulate --traffic-to URL`: the synthetic clients in a process of their own, which outlives the server."""

from __future__ import annotations

import asyncio
import contextlib
import signal

from exporter.simulator.options import Options
from exporter.simulator.traffic import Traffic


def be_clients(options: Options, to: str) -> int:
    """Send until SIGTERM or SIGINT; the exit code of the process."""
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_send(options, to))
    return 0


async def _send(options: Options, to: str) -> None:
    sending = asyncio.ensure_future(Traffic(options, to).run(wait_until_up=True))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, sending.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await sending
