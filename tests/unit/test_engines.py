"""What several engines are to the daemon: commands, ports, saved state. The whole: acceptance/test_engines.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from exporter.engines import check_ports, stray_folders, watched_engines, with_gpus
from exporter.errors import ConfigError
from exporter.settings import Settings, load_settings


def settings(tmp_path: Path, *engines: dict[str, Any], **flags: Any) -> Settings:
    return load_settings({"engines": list(engines), "data_dir": str(tmp_path), **flags}, environ={})


def entry(name: str, command: str = "vllm serve M", **more: Any) -> dict[str, Any]:
    return {"name": name, "command": command, **more}


def test_the_only_engine_has_the_daemons_own_folder_and_no_name(tmp_path: Path):
    (only,) = watched_engines(
        load_settings({"engine.command": "vllm serve M", "data_dir": str(tmp_path)}, environ={})
    )
    assert (only.name, only.id, only.data_dir) == ("", "engine", tmp_path)
    assert only.command is not None
    assert only.command.argv == ("vllm", "serve", "M")


def test_each_of_several_has_a_folder_its_own_options_and_its_gpus(tmp_path: Path):
    found = watched_engines(
        settings(
            tmp_path,
            entry("a", gpus=[0, 1], drain_timeout=3),
            entry("b", "vllm serve N --port 9 --api-key s3cr3t-key"),
            {"name": "c", "url": "http://other:8000"},
        )
    )
    a, b, c = found
    assert [one.data_dir for one in found] == [tmp_path / "engines" / name for name in "abc"]
    assert a.command is not None
    assert a.command.argv == (
        "env", "CUDA_DEVICE_ORDER=PCI_BUS_ID", "CUDA_VISIBLE_DEVICES=0,1", "vllm", "serve", "M",
    )  # fmt: skip
    assert (a.settings.drain_timeout, b.settings.drain_timeout) == (3, 30)
    assert a.base_url == "http://127.0.0.1:8000"
    assert (b.base_url, c.base_url) == ("http://127.0.0.1:9", "http://other:8000")
    assert b.key is not None
    assert b.key.get_secret_value() == "s3cr3t-key"
    assert c.command is None


def test_every_command_that_cannot_be_is_told_by_its_engines_name(tmp_path: Path):
    with pytest.raises(ConfigError) as raised:
        watched_engines(
            settings(tmp_path, entry("a", "vllm serve M --port x"), entry("b", "vllm serve M --uds /s"))
        )
    assert [problem.partition(":")[0] for problem in raised.value.problems] == [
        "engines[a].command",
        "engines[b].command",
    ]


def test_gpus_are_counted_as_the_environment_says_where_it_says_so():
    assert with_gpus(("vllm",), ("1",), {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}) == (
        "env", "CUDA_VISIBLE_DEVICES=1", "vllm",
    )  # fmt: skip
    assert with_gpus(("vllm",), (), {}) == ("vllm",)


def test_a_container_is_told_that_its_gpus_are_its_own_affair(tmp_path: Path):
    (one,) = watched_engines(settings(tmp_path, entry("a", "docker run vllm/vllm-openai", gpus=[0])))
    assert one.command is not None
    assert "gpus does not reach into a container" in one.command.remarks[-1]


def test_two_engines_on_one_port_need_a_gateway(tmp_path: Path):
    check_ports(watched_engines(settings(tmp_path, entry("a"), entry("b", "vllm serve M --port 9"))))
    with pytest.raises(ConfigError, match=r"a and b both listen on port 8000.*\(because\).*--port"):
        check_ports(watched_engines(settings(tmp_path, entry("a"), entry("b"))), why_no_gateway="because")


def test_folders_of_engines_that_are_named_no_more_are_looked_into(tmp_path: Path):
    for name in ("a", "gone"):
        (tmp_path / "engines" / name).mkdir(parents=True)
    several = settings(tmp_path, entry("a"))
    assert stray_folders(several) == (tmp_path, tmp_path / "engines" / "gone")
    one = load_settings({"engine.command": "vllm serve M", "data_dir": str(tmp_path)}, environ={})
    assert stray_folders(one) == (tmp_path / "engines" / "a", tmp_path / "engines" / "gone")
