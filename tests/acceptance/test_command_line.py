"""The installed program, as scripts call it: usage, configuration, exit codes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = (sys.executable, "-m", "exporter")


def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("VLLM_")}
    return subprocess.run(
        [*PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**clean, "PYTHONWARNINGS": "error", **(env or {})},
    )


def refused(*arguments: str, env: dict[str, str] | None = None) -> str:
    result = run(*arguments, env=env)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    return result.stderr


def test_help_and_version_answer():
    assert run("--version").stdout.startswith("vllm-exporter ")
    assert "simulate" in run("--help").stdout
    assert "--engine-url" in run("run", "--help").stdout


def test_the_console_script_is_the_same_program():
    script = Path(sys.executable).parent / "vllm-exporter"
    assert subprocess.check_output([script, "--version"], text=True) == run("--version").stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "COMMAND"),
        (("fly",), "invalid choice"),
        (("run",), "no engine"),
        (("run", "--"), "nothing follows --"),
        (("run", "--engine-url", "gopher://x"), "flag --engine-url"),
        (("run", "--engine-url"), "expected one argument"),
        (("run", "--engine-url", "http://127.0.0.1:1", "--scrape-interval", "-1"), "flag --scrape-interval"),
        (("run", "--engine-url", "http://127.0.0.1:1", "--on-exit", "explode"), "flag --on-exit"),
        (
            ("run", "--engine-url", "http://127.0.0.1:1", "--set", "engine.drain_timeot=1"),
            "did you mean engine.drain_timeout",
        ),
        (("run", "--engine-url", "http://127.0.0.1:1", "--set", "nonsense"), "expected SETTING=VALUE"),
        (("run", "--config", "/does/not/exist.toml"), "cannot read the config file"),
        (("run", "--eng", "http://127.0.0.1:1"), "unrecognized arguments"),
        (("check", "config", "/does/not/exist.toml"), "cannot read the config file"),
        (("check", "config", "--", "vllm"), "takes no engine command"),
    ],
)
def test_wrong_usage_is_a_clear_error_and_exit_code_2(arguments: tuple[str, ...], expected: str):
    assert expected in refused(*arguments)


def test_a_taken_port_is_told_before_anything_is_started(tmp_path: Path):
    marker = tmp_path / "started"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = refused(
            "run", "--listen", f"127.0.0.1:{port}", "--data-dir", str(tmp_path / "d"), "--", "touch", str(marker)
        )  # fmt: skip
    assert f"{port}: the port is taken" in error
    assert not marker.exists()


def test_a_data_folder_that_cannot_be_written_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("")
    error = refused(
        "run", "--engine-url", "http://127.0.0.1:1", "--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "file")
    )  # fmt: skip
    assert "--data-dir" in error


def test_check_config_prints_the_effective_configuration_without_secrets(tmp_path: Path):
    config = tmp_path / "c.toml"
    config.write_text('[web]\nbearer_token = "t0ps3cret"\n[engine]\nurl = "http://gpu:8000"\n')
    result = run("check", "config", str(config), env={"VLLM_EXPORTER_SCRAPE__INTERVAL": "2.5"})
    assert result.returncode == 0
    assert 'url = "http://gpu:8000"' in result.stdout
    assert "interval = 2.5" in result.stdout
    assert "t0ps3cret" not in result.stdout + result.stderr


def test_check_config_reads_the_rule_files_too(tmp_path: Path):
    rules, config = tmp_path / "bad.yml", tmp_path / "config.toml"
    rules.write_text("groups: [{name: g, rules: [{alert: A, expr: 'sum('}]}]\n")
    config.write_text(f'[rules]\nfiles = ["{rules}"]\n')
    done = subprocess.run(
        [*PROGRAM, "check", "config", str(config)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert f"{rules}:1:" in done.stderr


def test_check_config_reads_the_gateways_keys_and_says_why_it_would_be_off(tmp_path: Path):
    keys, config = tmp_path / "keys.toml", tmp_path / "config.toml"
    config.write_text(
        f'[engine]\ncommand = ["vllm", "serve", "m"]\n[gateway]\nkeys_file = "{keys}"\nlisten = "127.0.0.1:9108"\n'
    )
    done = run("check", "config", str(config))
    assert done.returncode == 2
    assert str(keys) in done.stderr
    assert "web.listen" in done.stderr
    made = run("keys", "add", "team-a", "--config", str(config))
    assert made.returncode == 0
    assert made.stdout.startswith("sk-")
    listed = run("keys", "list", "--config", str(config))
    assert "team-a" in listed.stdout
    assert made.stdout.strip() not in keys.read_text() + listed.stdout
    config.write_text(config.read_text().replace("9108", "9109"))
    assert run("check", "config", str(config)).returncode == 0


def test_rules_may_be_named_several_times(tmp_path: Path):
    one, two = tmp_path / "one.yml", tmp_path / "two.yml"
    for file in (one, two):
        file.write_text("groups: [{name: g, rules: [{record: b}]}]\n")
    done = run(
        "run",
        "--engine-url",
        "http://127.0.0.1:1",
        "--rules",
        str(one),
        "--rules",
        str(two),
        "--data-dir",
        str(tmp_path / "data"),
        "--listen",
        "127.0.0.1:0",
    )
    assert done.returncode == 2
    assert str(one) in done.stderr
    assert str(two) in done.stderr


def test_a_query_whose_output_cannot_be_written_says_so(tmp_path: Path):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    class Face(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(b'{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}')

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Face) as server, Path("/dev/full").open("w") as full:
        Thread(target=server.serve_forever, daemon=True).start()
        done = subprocess.run(
            [*PROGRAM, "query", "1", "--url", f"http://127.0.0.1:{server.server_port}"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        server.shutdown()
    assert done.returncode == 1
    assert "cannot write the answer: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
