"""`keys add` shows a key once; the file keeps its digest, and everything that stood in it."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

import pytest

from exporter.errors import ConfigError
from exporter.gateway.keys import command
from exporter.gateway.keys.file import KeysFile, read_keys
from exporter.gateway.keys.key import Key, digest, new_key
from exporter.gateway.model import Priority


def run(*argv: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.main(parser.parse_args(argv))


def test_the_first_key_makes_the_file_and_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "keys.toml"
    assert run("add", "team-a", "--file", str(path)) == 0
    said = capsys.readouterr()
    secret = said.out.strip()
    assert secret not in said.err
    assert "shown this once" in said.err
    assert secret not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    found = KeysFile(path).keys.check(b"Bearer " + secret.encode())
    assert found == Key("team-a", (digest(secret.encode()),))


def test_further_keys_leave_what_stands_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "keys.toml"
    path.write_text("# ours")
    path.chmod(0o640)
    run("add", "a", "--file", str(path), "--requests-per-minute", "5", "--tokens-per-minute", "0")
    run("add", "b", "--file", str(path), "--priority", "batch", "--model", 'm"1', "--model", "org/n\u00e4me")
    assert path.read_text().startswith("# ours\n\n[[keys]]\n")
    assert path.stat().st_mode & 0o777 == 0o640
    first, second = read_keys(path)
    assert (first.requests_per_minute, first.tokens_per_minute) == (5, 0)
    assert (second.priority, second.models) == (Priority.BATCH, frozenset({'m"1', "org/n\u00e4me"}))
    capsys.readouterr()
    assert run("list", "--file", str(path)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["NAME", "PRIORITY", "REQUESTS/MIN", "TOKENS/MIN", "MODELS", "SHA256"]
    assert lines[1].split() == ["a", "interactive", "5", "none", "all", f"{first.digests[0].hex()[:8]}…"]
    assert lines[2].startswith("b     batch        default       default")


@pytest.mark.parametrize("name", ["a", "", "x\ny", "sk-1234"])
def test_a_name_that_is_taken_or_none_changes_nothing(tmp_path: Path, name: str) -> None:
    path = tmp_path / "keys.toml"
    run("add", "a", "--file", str(path))
    before = path.read_text()
    with pytest.raises(ConfigError):
        run("add", name, "--file", str(path))
    assert path.read_text() == before


def test_nothing_is_made_for_a_wrong_name_or_added_to_a_broken_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        run("add", "x\ny", "--file", str(tmp_path / "keys.toml"))
    assert not list(tmp_path.iterdir())
    broken = tmp_path / "broken"
    broken.write_text("keys = []")
    with pytest.raises(ConfigError, match="not TOML"):  # [[keys]] cannot follow
        run("add", "a", "--file", str(broken))
    assert broken.read_text() == "keys = []"


def test_a_key_that_exists_is_taken_from_standard_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, secret = tmp_path / "keys.toml", new_key()
    monkeypatch.setattr(sys, "stdin", io.StringIO(secret + "\n"))
    run("add", "old", "--file", str(path), "--stdin")
    said = capsys.readouterr()
    assert said.out == ""
    assert secret not in said.err
    assert KeysFile(path).keys.check(b"Bearer " + secret.encode()) == read_keys(path)[0]
    monkeypatch.setattr(sys, "stdin", io.StringIO("hunter2\n"))
    with pytest.raises(ConfigError, match="at least 20") as caught:
        run("add", "weak", "--file", str(path), "--stdin")
    assert "hunter2" not in str(caught.value)


def test_the_file_is_that_of_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'[gateway]\nkeys_file = "{tmp_path / "k"}"\n')
    run("add", "a", "--config", str(config))
    monkeypatch.setenv("VLLM_EXPORTER_GATEWAY__KEYS_FILE", str(tmp_path / "k"))
    assert run("list") == 0
    monkeypatch.delenv("VLLM_EXPORTER_GATEWAY__KEYS_FILE")
    with pytest.raises(ConfigError, match="no keys file"):
        run("list")
