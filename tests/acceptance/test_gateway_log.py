"""What the gateway writes down of requests."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from daemon import Daemon, eventually, free_port, simulator

QUICK = ("--set", "gpu.source=off", "--set", "engine.drain_timeout=1", "--set", "rules.builtin=false")
SECRET = "the tide comes in at noon"


def chat(port: int, *, stream: bool) -> str:
    body = {
        "model": "sim-8b", "stream": stream, "max_tokens": 5, "messages": [{"role": "user", "content": SECRET}],
    }  # fmt: skip
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(answer.read().decode())


def lines(daemon: Daemon, name: str) -> list[dict[str, Any]]:
    return [event for event in daemon.events() if event["event"] == name]


@pytest.mark.parametrize("ratio", ["0", "1"])
def test_prompts_and_replies_are_in_the_log_only_where_a_setting_says_so(tmp_path: Path, ratio: str):
    port = free_port()
    flags = ("--set", f"gateway.log_content_ratio={ratio}", *QUICK)
    with Daemon(tmp_path, "run", *flags, *simulator(port, "--disable-uvicorn-access-log")) as daemon:
        daemon.wait_ready()
        whole = json.loads(chat(port, stream=False))["choices"][0]["message"]["content"]
        streamed = chat(port, stream=True)
        eventually("two lines", lambda: len(lines(daemon, "request")) == 2)
        contents = lines(daemon, "request_content")
        if ratio == "0":
            assert contents == []
            assert SECRET not in daemon.log.read_text()
            return
        assert [line["request_id"] for line in contents] == [
            line["request_id"] for line in lines(daemon, "request")
        ]
        assert all(SECRET in line["prompt"] for line in contents)
        assert "stream_options" not in contents[1]["prompt"], "what the client sent, not what the engine got"
        assert json.dumps(whole)[1:-1] in contents[0]["reply"]
        deltas = [json.loads(line[6:]) for line in streamed.split("\n\n") if line.startswith("data: {")]
        assert contents[1]["reply"] == "".join(d["choices"][0]["delta"].get("content", "") for d in deltas)
