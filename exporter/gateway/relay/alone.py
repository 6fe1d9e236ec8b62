"""The relay by itself in front of one engine on loopback: `python -m exporter.gateway.relay.alone PORT UPSTREAM_PORT`. For benchmarks."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys

from exporter.exposition.block import Block
from exporter.gateway.admission.fleet import Backend, Fleet, Standing
from exporter.gateway.admission.gate import Gate
from exporter.gateway.measuring.recorder import Recorder
from exporter.gateway.relay.polling import new_event_loop
from exporter.gateway.relay.server import Relay
from exporter.gateway.routes import Routes
from exporter.settings import SliSettings
from exporter.settings.gateway import GatewaySettings


async def main(port: int, upstream: int) -> None:
    """Serve until SIGTERM."""
    loop = asyncio.get_running_loop()
    settings = GatewaySettings()
    fleet = Fleet([Backend("engine", "127.0.0.1", upstream, models=["tiny-qwen"], standing=Standing.READY)])
    gate = Gate(settings, fleet, later=loop.call_later)
    relay = Relay(
        settings,
        routes=Routes(),
        keys=None,
        gate=gate,
        fleet=fleet,
        recorder=Recorder(Block(), Block(), SliSettings(), model_limit=100, patience=2.0),
        local=lambda exchange, target: None,
    )
    await relay.start([socket.create_server(("127.0.0.1", port), backlog=1024)], None)
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    await stop.wait()
    await relay.stop()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main(int(sys.argv[1]), int(sys.argv[2])))
