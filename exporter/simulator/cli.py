"""`vllm-exporter simulate`: a process that looks like `vllm serve` from the outside."""

from __future__ import annotations

import argparse
import signal
import socket
import sys
import time

from exporter.simulator import console
from exporter.simulator.children import Children
from exporter.simulator.options import Options, add_arguments, read

__all__ = ["add_arguments", "main"]


def main(args: argparse.Namespace) -> int:
    """Run until told to stop; the exit code of the process."""
    try:
        options = read(args)
    except ValueError as error:
        if "KV cache" not in str(error):
            console.error_output(f"vllm serve: error: {error}\n")
            return 2
        share = args.num_gpu_blocks_override * args.block_size / args.max_model_len
        text = console.kv_cache_too_small(args.max_model_len, share)
        return console.refuse(console.Refusal(1, 0.8, text, in_core=True))
    if options.traffic_to is not None:
        from exporter.simulator.clients import be_clients

        return be_clients(options, options.traffic_to)
    if options.fail in ("unknown-flag", "invalid-value"):
        return console.refuse(console.refusals(_model(options, options.port))[options.fail])
    try:
        listener = _bind(options)
    except OSError as error:
        console.error_output(f"Traceback (most recent call last):\nOSError: {error}\n")
        return 1
    with listener:
        port = listener.getsockname()[1]
        children = Children()
        if (code := _load(options, _model(options, port), children)) is not None:
            children.end()
            return code
        from exporter.simulator.process import serve  # aiohttp: only who serves pays for it

        return serve(options, listener, children)


def _bind(options: Options) -> socket.socket:
    """Take the port at once, as vLLM does; it listens only when loaded."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((options.host, options.port))
    except OSError:
        listener.close()
        raise
    return listener


def _model(options: Options, port: int) -> console.Model:
    return console.Model(
        name=options.model,
        served=options.served,
        host=options.host,
        port=port,
        max_model_len=options.shape.max_model_len,
        max_batched_tokens=options.shape.max_batched_tokens,
        kv_tokens=options.shape.blocks * options.shape.block_size,
    )


def _load(options: Options, model: console.Model, children: Children) -> int | None:
    """Print what a load prints, in its time; the exit code when the start is to fail on the way."""
    refusal = console.refusals(model)[options.fail] if options.fail else None
    start = time.monotonic()
    for line in console.load_lines(model, options.load_seconds):
        if refusal is not None and line.at > refusal.at:
            return console.refuse(refusal)
        if line.at >= console.ENGINE_CORE_AT:
            # Seen in vLLM: once the engine core exists, SIGTERM is lost until the server runs.
            signal.signal(signal.SIGTERM, lambda signum, stack: None)
            if not children.pids:
                children.start(options.engine_processes, own_groups=options.ranks > 1)
        if "died" in children.changes():
            return console.refuse(console.refusals(model)["worker-died"])
        time.sleep(max(0.0, start + line.at * options.load_seconds - time.monotonic()))
        console.show(line)
    return None


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(prog="vllm-exporter simulate")
    add_arguments(_parser)
    sys.exit(main(_parser.parse_args()))
