"""What `check config` says of the gateway."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.engine.command import EngineCommand, read_command
from exporter.errors import ConfigError
from exporter.gateway.address import Candidate, GatewayOff, GatewayOn
from exporter.gateway.check import check_gateway
from exporter.settings import GatewaySettings, Settings, WebSettings


def command(*argv: str) -> EngineCommand:
    return read_command(argv, {}, url=None, read_file=lambda name: "")


SERVE = Candidate("engine", command("vllm", "serve", "m", "--port", "8000"))


def settings(web: str = "127.0.0.1:9108", **gateway: object) -> Settings:
    return Settings(
        gateway=GatewaySettings.model_validate(gateway), web=WebSettings.model_validate({"listen": web})
    )


def mistakes(made: Settings, engine: Candidate = SERVE) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check_gateway(made, [engine])
    return list(caught.value.problems)


def test_a_supervised_engine_leaves_its_port_to_the_gateway():
    place = check_gateway(settings(), [SERVE])
    assert isinstance(place, GatewayOn)
    assert place.port == 8000


def test_a_gateway_that_cannot_be_is_told_with_the_reason():
    stuck = Candidate("engine", command("./serve.sh"))
    place = check_gateway(settings(), [stuck])
    assert isinstance(place, (GatewayOff, GatewayOn))
    assert mistakes(settings(mode="on"), Candidate("engine", None)) == [
        "gateway.mode: cannot be on: nothing says where clients come; set gateway.listen"
    ]


def test_every_mistake_is_told_at_once(tmp_path: Path):
    keys = tmp_path / "keys.toml"
    keys.write_text('[[keys]]\nname = "a"\nhash = "sk-never-shown-in-a-message"\n')
    wrong = mistakes(
        settings(keys_file=keys, tls_cert_file=tmp_path / "no.pem", tls_key_file=tmp_path / "no.key")
    )
    assert len(wrong) == 2
    assert "gateway.tls_cert_file" in wrong[0]
    assert str(keys) in wrong[1]
    assert "never-shown" not in "".join(wrong)


def test_a_missing_keys_file_names_the_command_that_makes_one(tmp_path: Path):
    (wrong,) = mistakes(settings(keys_file=tmp_path / "none.toml"))
    assert "vllm-exporter keys add" in wrong


def test_nothing_is_checked_of_a_gateway_that_is_off(tmp_path: Path):
    place = check_gateway(settings(mode="off", keys_file=tmp_path / "none.toml"), [SERVE])
    assert place == GatewayOff()


@pytest.mark.parametrize(
    ("gateway", "web", "meet"),
    [
        ("127.0.0.1:9108", "127.0.0.1:9108", True),
        (":9108", "127.0.0.1:9108", True),
        ("127.0.0.1:9108", ":9108", True),
        ("127.0.0.2:9108", "127.0.0.1:9108", False),
        ("127.0.0.1:9109", "127.0.0.1:9108", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
    ],
)
def test_the_gateway_and_the_daemons_own_page_need_a_port_each(gateway: str, web: str, meet: bool):
    made = settings(web, listen=gateway)
    if meet:
        assert "web.listen" in mistakes(made)[0]
    else:
        check_gateway(made, [SERVE])
