"""Whatever a command line holds: it is moved, and then read as listening there, or it is left as it is."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.engine.command import EngineCommand, read_command
from exporter.engine.moving import moved
from exporter.errors import ConfigError

WORDS = st.sampled_from(
    ["vllm", "serve", "M", "--port", "--port=1", "9000", "bash", "-c", "env", "A=b", "--api-key", "sesame-open", "--config",
     "--ssl-certfile", "--ssl_keyfile=k", "simulate", "-m", "exporter", "--host", "::", "--host=", "--",
     "docker", "vllm serve M", "cd / && exec vllm serve M --port 3;", "vllm serve M &", "vllm serve 'M'\n", "--served-model-name"]
)  # fmt: skip
SERVER = (
    st.just(["vllm", "serve"])
    | st.just(["bash", "-c"])
    | st.just(["-m", "exporter", "simulate"])
    | st.just([])
)


def read(argv: list[str] | tuple[str, ...]) -> EngineCommand:
    return read_command(argv, {}, url=None, read_file=lambda path: "port: 7\nssl-certfile: c")


@settings(max_examples=300, deadline=None)
@given(SERVER, st.lists(WORDS, max_size=8))
def test_a_moved_command_is_read_as_listening_where_it_was_moved_to(
    server: list[str], more: list[str]
) -> None:
    with contextlib.suppress(ConfigError):
        command = read([*server, *more])
        there = moved(command, 4321)
        if isinstance(there, EngineCommand):
            again = read(there.argv)
            assert again.base_url == there.base_url == "http://127.0.0.1:4321"
            assert again.served_models == command.served_models
            assert again.api_key == command.api_key
            if "--api-key" in more and command.secrets:
                assert all(secret not in there.line for secret in command.secrets)
