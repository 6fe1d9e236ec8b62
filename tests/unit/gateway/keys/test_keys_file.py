"""The keys file is read whole or not at all, and followed when it changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import structlog

from exporter.errors import ConfigError
from exporter.gateway.keys.file import KeysFile, parse_keys, read_keys
from exporter.gateway.keys.key import Key, digest, new_key
from exporter.gateway.model import Priority, Refusal

A, B = new_key(), new_key()


def table(name: str, key: str, more: str = "") -> str:
    return f'[[keys]]\nname = "{name}"\nhash = "sha256:{digest(key.encode()).hex()}"\n{more}\n'


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_keys(text, source="keys.toml")
    assert all(problem.startswith("keys.toml: ") for problem in caught.value.problems)
    return [problem.removeprefix("keys.toml: ") for problem in caught.value.problems]


def test_a_file_says_all_that_a_key_may_do() -> None:
    more = 'requests_per_minute = 6\ntokens_per_minute = 0\npriority = "batch"\nmodels = ["m", "n"]'
    first, second = parse_keys(table("a", A, more) + "# plain\n" + table("team b@x", B), source="f")
    assert first == Key("a", (digest(A.encode()),), 6, 0, Priority.BATCH, frozenset({"m", "n"}))
    assert second == Key("team b@x", (digest(B.encode()),))


def test_a_key_may_have_two_hashes_while_it_is_replaced() -> None:
    both = ", ".join(f'"sha256:{digest(key.encode()).hex()}"' for key in (A, B))
    (key,) = parse_keys(f'[[keys]]\nname = "a"\nhash = [{both}]\n', source="f")
    assert key.digests == (digest(A.encode()), digest(B.encode()))


def test_a_file_without_keys_has_none() -> None:
    assert parse_keys("", source="f") == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[keys]\n", "not TOML"),
        ("keys = 5", "keys: Input should be a valid list"),
        ('[[key]]\nname = "a"', "key: Extra inputs are not permitted"),
        ("[[keys]]\n" + 'name = "a"', "keys.0.hash: expected sha256:"),
        (table("a", A).replace("sha256:", "md5:"), "keys.0.hash: expected sha256:"),
        (f'[[keys]]\nname = "a"\nhash = "{A}"', "keys.0.hash: expected sha256:"),
        (f'[[keys]]\nname = "a"\nhash = ["{A}"]', "keys.0.hash: expected sha256:"),
        ('[[keys]]\nname = "a"\nhash = []', "keys.0.hash: expected sha256:"),
        (table("a", A, "priority = 'urgent'"), "keys.0.priority"),
        (table("a", A, "requests_per_minute = -1"), "keys.0.requests_per_minute"),
        (table("a", A, "requests_per_minute = true"), "keys.0.requests_per_minute"),
        (table("a", A, "tokens_per_minute = 1.5"), "keys.0.tokens_per_minute"),
        (table("a", A, "rpm = 5"), "keys.0.rpm: Extra inputs"),
        (table("", A), "keys.0.name"),
        (table("a\\nb", A), "keys.0.name"),
        (table("x" * 65, A), "keys.0.name"),
        (table("a", A) + table("a", B), "two keys are called 'a'"),
        (table("a", A) + table("b", A), "'a' and 'b' have the same hash"),
        (table(A, B), "begins with sk-"),
    ],
)
def test_a_mistake_is_named_and_no_key_is_repeated(text: str, said: str) -> None:
    found = problems(text)
    assert any(said in problem for problem in found), found
    assert not any(A in problem or B in problem for problem in found)


def test_every_mistake_is_named_at_once() -> None:
    assert len(problems(table("a", A, "rpm = 1") + table("", B, "tokens_per_minute = -1"))) == 3


def test_a_file_that_cannot_be_read_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such file; `vllm-exporter keys add NAME --file .*` makes"):
        read_keys(tmp_path / "none")
    with pytest.raises(ConfigError, match="Is a directory"):
        read_keys(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_keys(tmp_path / "binary")


def knows(file: KeysFile, key: str) -> bool:
    return not isinstance(file.keys.check(b"Bearer " + key.encode()), Refusal)


async def test_a_changed_file_is_read_once_it_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(table("a", A))
    file = KeysFile(path)
    keys = file.keys
    await file.follow()
    path.write_text(table("a", A)[:20])  # an editor has begun to write
    with structlog.testing.capture_logs() as logs:
        await file.follow()
        assert knows(file, A)
        path.write_text(table("a", A) + table("b", B))
        await file.follow()
        assert not knows(file, B)
        await file.follow()
        await file.follow()
    assert knows(file, B)
    assert file.keys is keys
    assert [(entry["event"], entry["keys"], entry["before"]) for entry in logs] == [
        ("gateway_keys_reloaded", 2, 1)
    ]


async def test_a_file_with_a_mistake_changes_nothing_and_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(table("a", A))
    file = KeysFile(path)
    path.write_text("nonsense")
    with structlog.testing.capture_logs() as logs:
        for _ in range(4):
            await file.follow()
    assert [entry["event"] for entry in logs] == ["gateway_keys_not_reloaded"]
    assert knows(file, A)
    path.unlink()
    with structlog.testing.capture_logs() as logs:
        for _ in range(4):
            await file.follow()
    (told,) = logs
    assert "no such file" in told["errors"][0]
    assert knows(file, A)


async def test_a_reload_reads_at_once_and_says_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(table("a", A))
    file = KeysFile(path)
    path.write_text(table("b", B))
    assert await file.reload() == ()
    assert knows(file, B)
    assert not knows(file, A)
    path.write_text("x")
    (problem,) = await file.reload()
    assert "not TOML" in problem
    assert knows(file, B)


async def test_a_file_that_is_put_in_place_of_another_is_followed(tmp_path: Path) -> None:
    path, new = tmp_path / "keys.toml", tmp_path / "new"
    path.write_text(table("a", A))
    stamp = path.stat()
    file = KeysFile(path)
    new.write_text(table("a", B))
    os.utime(new, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    new.replace(path)
    await file.follow()
    await file.follow()
    assert knows(file, B)
