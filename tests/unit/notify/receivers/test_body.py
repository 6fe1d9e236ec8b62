"""A webhook's body by a template of the user's own."""

from __future__ import annotations

import builtins
import json
import threading
from typing import Any

import pytest

from exporter.errors import ConfigError
from exporter.notify.receivers.body import BODY_LIMIT, Body, BodyError

VALUES: dict[str, Any] = {
    "status": "firing",
    "alerts": [{"labels": {"alertname": "QueueLong", "say": '"重" <b>'}, "annotations": {}}],
    "now": 1_700_000_000.0,
    "facts": {"model": "qwen"},
}


async def test_it_sees_the_payload_by_its_own_names() -> None:
    source = """{"text": {{ alerts[0].labels | tojson }}, "n": {{ alerts | length }}, "at": "{{ now | rfc3339 }}",
        "model": "{{ facts.model }}", "list": [{% for one in alerts %}"{{ one.labels.alertname }}"{% endfor %}]}"""
    made = json.loads(await Body(source, "f").render(VALUES))
    assert made == {
        "text": VALUES["alerts"][0]["labels"],
        "n": 1,
        "at": "2023-11-14T22:13:20Z",
        "model": "qwen",
        "list": ["QueueLong"],
    }


async def test_text_is_not_escaped_and_stays_utf8() -> None:
    assert await Body("{{ alerts[0].labels.say }}\n", "f").render(VALUES) == '"重" <b>\n'.encode()


async def test_a_label_that_is_not_there_is_empty_as_in_alertmanagers_templates() -> None:
    assert await Body("[{{ alerts[0].labels.gpu }}]", "f").render(VALUES) == b"[]"


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("a\n{% if %}", "file.yml: line 2 of the body template"),
        ("{{ alerts | nonsense }}", "No filter named 'nonsense'"),
        ("{{ alert.labels }}", "'alert', which is not there; did you mean 'alerts'?"),
        ("{{ xyz }}", "'xyz', which is not there; there are receiver, status"),
    ],
)
def test_mistakes_are_told_when_the_configuration_is_read(source: str, problem: str) -> None:
    with pytest.raises(ConfigError) as told:
        Body(source, "file.yml")
    assert problem in str(told.value)


@pytest.mark.parametrize(
    "source",
    [
        "{{ alerts[0].labels.gpu.x }}",
        "{{ 1 / 0 }}",
        "{{ alerts.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ alerts.append(1) }}",
    ],
)
async def test_what_fails_or_is_forbidden_while_it_runs_is_told_without_values(source: str) -> None:
    with pytest.raises(BodyError) as told:
        assert await Body(source, "f").render(VALUES) == b"", "an attribute that is not there is empty"
        raise BodyError("the body template is harmless")
    assert "QueueLong" not in str(told.value)
    assert len(VALUES["alerts"]) == 1


async def test_a_body_without_end_is_stopped() -> None:
    source = "{% for n in range(99999) %}" + "x" * 100 + "{% endfor %}"
    with pytest.raises(BodyError, match="more than 4 MiB"):
        await Body(source, "f").render(VALUES)
    assert BODY_LIMIT == 4 * 1024 * 1024


async def test_a_template_that_takes_for_ever_holds_up_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exporter.notify.receivers.body.RENDER_SECONDS", 0.05)
    stop = threading.Event()
    values = {**VALUES, "facts": {"wait": stop.wait}}
    body = Body("{{ facts.wait(20) }}", "f")
    try:
        for _ in range(5):
            with pytest.raises(BodyError, match=r"takes longer than 0\.05 s"):
                await body.render(values)
    finally:
        stop.set()


def test_without_jinja_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("jinja2"):
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install 'vllm-exporter\[notify\]'"):
        Body("x", "f")
