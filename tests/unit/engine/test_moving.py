"""A command that is to listen elsewhere: only its address changes, and where that is not safe it says so."""

from __future__ import annotations

import shlex
import socket

import pytest

from exporter.engine.command import EngineCommand, PublicAddress, read_command
from exporter.engine.moving import Berth, Unmovable, moved
from exporter.errors import ConfigError

AT = "--port 4321 --host 127.0.0.1"
NO_TLS = "--ssl-keyfile= --ssl-certfile="


def read(*argv: str, url: str | None = None, config: str = "") -> EngineCommand:
    return read_command(argv, {}, url=url, read_file=lambda name: config)


def moved_line(command: EngineCommand, port: int = 4321) -> str:
    there = moved(command, port)
    assert isinstance(there, EngineCommand), there
    assert there.base_url == f"http://127.0.0.1:{port}"
    assert there.identity == command.argv
    assert there.moved
    assert not command.moved
    return shlex.join(there.argv)


def reason(command: EngineCommand) -> str:
    there = moved(command, 4321)
    assert isinstance(there, Unmovable), there
    return there.reason


@pytest.mark.parametrize(
    ("argv", "public"),
    [
        ("vllm serve M", PublicAddress("0.0.0.0", 8000)),
        ("vllm serve M --host 0.0.0.0 --port 80", PublicAddress("0.0.0.0", 80)),
        ("vllm serve M --host ::", PublicAddress("::", 8000)),
        ("vllm serve M --host [::1]", PublicAddress("::1", 8000)),
        ("vllm serve M --host localhost", PublicAddress("localhost", 8000)),
        ("vllm serve M --ssl-certfile c --ssl_keyfile k", PublicAddress("0.0.0.0", 8000, "c", "k")),
        (
            "vllm serve M --ssl-certfile c --ssl-keyfile k --ssl-cert-reqs 2",
            PublicAddress("0.0.0.0", 8000, "c", "k", tls_asks_clients=True),
        ),
        ("vllm serve M --ssl-cert-reqs 0", PublicAddress("0.0.0.0", 8000)),
        ("vllm-exporter simulate", PublicAddress("127.0.0.1", 8000)),
        ("python -m exporter simulate --host 0.0.0.0 --port 9", PublicAddress("0.0.0.0", 9)),
    ],
)
def test_where_clients_find_the_engine_is_what_its_flags_say(argv: str, public: PublicAddress) -> None:
    assert read(*argv.split()).public == public


def test_where_the_setting_says_the_address_the_flags_do_not() -> None:
    assert read("vllm", "serve", "M", url="http://h:1").public is None


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ("vllm serve M", f"vllm serve M {AT}"),
        (
            "vllm serve M --port 9000 --max-model-len 5",
            "vllm serve M --port 4321 --max-model-len 5 --host 127.0.0.1",
        ),
        ("vllm serve --port=9000 --host=0.0.0.0 M", f"vllm serve {AT} M"),
        ("vllm serve --port 9000 --port 9001 M", "vllm serve --port 4321 --port 4321 M --host 127.0.0.1"),
        ("vllm serve M --host :: --enable-x", "vllm serve M --host 127.0.0.1 --enable-x --port 4321"),
        ("vllm serve M --host --enable-x", "vllm serve M --host 127.0.0.1 --enable-x --port 4321"),
        ("vllm serve M --served-model-name a b", f"vllm serve M --served-model-name a b {AT}"),
        (
            "vllm serve --served-model-name a b --port 9000 M",
            "vllm serve --served-model-name a b --port 4321 M --host 127.0.0.1",
        ),
        ("vllm serve M --hostile x --port-range 5", f"vllm serve M --hostile x --port-range 5 {AT}"),
        ("env X=1 nice -n 5 vllm serve M", f"env X=1 nice -n 5 vllm serve M {AT}"),
        ("uv run --port 1 vllm serve M --port 2", f"uv run --port 1 vllm serve M {AT}"),
        (
            "python -m vllm.entrypoints.openai.api_server --model M",
            f"python -m vllm.entrypoints.openai.api_server --model M {AT}",
        ),
        (
            "python -m exporter simulate --port 8000 m",
            "python -m exporter simulate --port 4321 m --host 127.0.0.1",
        ),
        (
            "vllm serve --ssl-certfile c --ssl_keyfile=k --ssl-ca-certs d M --enable-ssl-refresh -O3",
            f"vllm serve --ssl-certfile= --ssl-keyfile= --ssl-ca-certs= M --ssl-keyfile= -O3 {AT}",
        ),
        ("vllm serve M --ssl-certfile c", f"vllm serve M --ssl-certfile= {AT} --ssl-keyfile="),
        ("vllm serve M --ssl-cert-reqs 0", f"vllm serve M --ssl-cert-reqs 0 {AT}"),
    ],
)
def test_port_and_host_are_set_anew_where_the_servers_flags_stand(argv: str, expected: str) -> None:
    assert moved_line(read(*argv.split())) == expected


def test_a_config_file_is_overruled_by_flags() -> None:
    config = "port: 7777\nhost: 10.0.0.1\nssl-certfile: c\nssl-keyfile: k\n"
    command = read("vllm", "serve", "--config", "f", config=config)
    assert command.public == PublicAddress("10.0.0.1", 7777, "c", "k")
    assert moved_line(command) == f"vllm serve --config f {AT} {NO_TLS}"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("vllm serve M --port 9000", f"vllm serve M --port 9000 {AT}"),
        ("vllm serve M;\n ; ", f"vllm serve M {AT}"),
        ("cd /x && exec vllm serve 'M x' >log 2>&1", f"cd /x && exec vllm serve 'M x' >log 2>&1 {AT}"),
        (
            "set -e\n# the model\nvllm serve M \\\n  -O3\n",
            f"set -e\n# the model\nvllm serve M \\\n  -O3 {AT}",
        ),
        ('vllm serve "$(cat name)" $EXTRA "$@"', f'vllm serve "$(cat name)" $EXTRA "$@" {AT}'),
    ],
)
def test_a_script_that_ends_with_the_server_gets_the_flags_at_its_end(script: str, expected: str) -> None:
    command = read("bash", "-lc", script, "zero", "one")
    assert moved_line(command) == shlex.join(["bash", "-lc", expected, "zero", "one"])


@pytest.mark.parametrize(
    "script",
    [
        "vllm serve M | tee log",
        "vllm serve M &",
        "vllm serve M & wait",
        "vllm serve M || true",
        "vllm serve M; echo over",
        "(vllm serve M)",
        "{ vllm serve M; }",
        "if true; then vllm serve M; fi",
        "while true; do vllm serve M; done",
        "vllm serve M # on the GPU",
        "vllm serve M\n# over",
        "vllm serve M \\;",
        "vllm serve M <<EOF\nx\nEOF",
        "vllm serve `cat name`",
        "vllm serve $(cat name)",
        "vllm serve M --",
        "bash -c 'vllm serve M'",
        "eval 'vllm serve M'",
        "$VLLM serve M",
        "docker run vllm vllm serve M",
        "test -e x && vllm serve a || vllm serve b",
        "vllm serve a --port 8001 & vllm serve b",
        "my-server",
    ],
)
def test_a_script_that_goes_on_or_is_intricate_is_left_alone(script: str) -> None:
    assert reason(read("sh", "-c", script))


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        ("docker run -p 8000:8000 vllm/vllm-openai vllm serve M", "docker may give it a network of its own"),
        ("/usr/bin/ssh box vllm serve M", "ssh may give"),
        ("kubectl exec pod -- vllm serve M", "kubectl may give"),
        ("ip netns exec x vllm serve M", "ip may give"),
        ("docker run vllm/vllm-openai --model M", "it names no server whose flags are known"),
        ("./start.sh --port 9000", "it names no server whose flags are known"),
        ("bash start.sh", "it names no server whose flags are known"),
        ("vllm serve M -- x", "its flags end with --"),
        ("vllm serve M --grpc", "gRPC"),
        ("vllm serve M --data-parallel-multi-port-external-lb", "several ports"),
        ("vllm serve M --ssl-certfile c --ssl-keyfile k --ssl-cert-reqs 2", "certificates"),
    ],
)
def test_a_command_that_cannot_be_moved_says_why(argv: str, why: str) -> None:
    assert why in reason(read(*argv.split()))


def test_an_address_by_setting_cannot_be_moved() -> None:
    assert "engine.url" in reason(read("vllm", "serve", "M", url="http://h:1"))
    assert "engine.url" in reason(read("vllm", "serve", "M", "--uds", "/s", url="http://h:1"))


def test_a_moved_command_can_move_again_and_hides_its_secrets_as_before() -> None:
    command = read("vllm", "serve", "M", "--api-key", "sesame-sesame", "--port", "9000")
    once = moved(command, 1111)
    assert isinstance(once, EngineCommand)
    twice = moved(once, 2222)
    assert isinstance(twice, EngineCommand)
    assert twice.argv == (*command.argv[:5], "--port", "2222", "--host", "127.0.0.1")
    assert twice.identity == command.argv
    assert twice.line == "vllm serve M --api-key '***' --port 2222 --host 127.0.0.1"
    assert "sesame" not in repr(twice)
    assert twice.api_key == command.api_key
    assert twice.public == PublicAddress("0.0.0.0", 9000)


def port_of(command: EngineCommand) -> int:
    return int(command.base_url.rpartition(":")[2])


def test_a_berth_is_kept_from_others_and_left_to_the_engine() -> None:
    berth = Berth(read("vllm", "serve", "M"))
    port = port_of(berth.command)
    with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
        stranger.bind(("127.0.0.1", port))
    assert berth.ready() is berth.command
    with socket.socket() as engine:
        engine.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as uvicorn and vLLM do
        engine.bind(("127.0.0.1", port))
        engine.listen()
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass
    assert port_of(berth.ready()) == port
    berth.release()
    with socket.socket() as anybody:
        anybody.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        anybody.bind(("127.0.0.1", port))


def test_a_berth_where_somebody_listens_is_given_up() -> None:
    berth = Berth(read("vllm", "serve", "M"))
    port = port_of(berth.command)
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("127.0.0.1", port))
        stranger.listen()
        assert port_of(berth.ready()) != port
    berth.release()


def test_a_berth_that_the_engine_could_not_have_is_another_and_left_open() -> None:
    berth = Berth(read("vllm", "serve", "M"))
    port = port_of(berth.command)
    berth.distrust()
    with socket.socket() as other:  # the old one is anybody's again
        other.bind(("127.0.0.1", port))
        again = port_of(berth.ready())
        assert again != port
    with socket.socket() as strict:
        strict.bind(("127.0.0.1", again))


def test_an_engine_that_runs_already_stays_where_it_is_until_it_is_started_anew() -> None:
    berth = Berth(read("vllm", "serve", "M"))
    taken = berth.take("http://127.0.0.1:4321", was_moved=True)
    assert taken.argv == ("vllm", "serve", "M", *AT.split())
    stayed = berth.take("http://127.0.0.1:8000", was_moved=False)
    assert stayed == read("vllm", "serve", "M")
    assert port_of(berth.ready()) not in (4321, 8000)
    berth.release()


def test_a_command_that_cannot_be_moved_has_no_berth() -> None:
    with pytest.raises(ConfigError, match=r"cannot be given another port: docker may"):
        Berth(read("docker", "run", "vllm", "serve", "M"))
