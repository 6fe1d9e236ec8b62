from __future__ import annotations

import json
from pathlib import Path

import pytest

from exporter.errors import ConfigError
from exporter.settings import Settings, load_settings
from exporter.settings.engines import shared_gpus
from exporter.settings.show import as_toml

PAIR = """
[engine]
drain_timeout = 7
restart_delay_max = 200
on_exit = "keep"

[[engines]]
name = "a"
gpus = [0, 1]
command = "vllm serve x"
restart_delay = 100

[[engines]]
name = "b"
gpus = "GPU-8f6a"
command = ["vllm", "serve", "y"]
drain_timeout = 9

[[engines]]
name = "elsewhere"
url = "http://other:8000"
"""


def load(tmp_path: Path, text: str, flags: dict[str, object] | None = None) -> Settings:
    path = tmp_path / "exporter.toml"
    path.write_text(text, encoding="utf-8")
    return load_settings(flags, config=path, environ={})


def problems(tmp_path: Path, text: str, flags: dict[str, object] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, text, flags)
    return [problem.removeprefix(f"{tmp_path}/") for problem in raised.value.problems]


def test_an_entry_has_what_it_says_and_the_rest_of_what_the_section_says_for_all(tmp_path: Path):
    a, b, elsewhere = load(tmp_path, PAIR).engines
    assert (a.name, a.gpus, a.command) == ("a", ("0", "1"), ("vllm", "serve", "x"))
    assert (a.drain_timeout, b.drain_timeout, elsewhere.drain_timeout) == (7, 9, 7)
    assert (a.restart_delay, b.restart_delay) == (100, 1)  # checked against the shared restart_delay_max
    assert (b.gpus, elsewhere.gpus) == (("GPU-8f6a",), ())
    assert (a.on_exit, elsewhere.on_exit) == ("keep", "stop")  # nobody keeps what is not ours


def test_without_entries_there_are_none():
    assert load_settings(environ={}).engines == ()


@pytest.mark.parametrize("flag", ["engine.command", "engine.url"])
def test_one_engine_beside_several_is_a_mistake_that_says_what_to_do(tmp_path: Path, flag: str):
    (problem,) = problems(tmp_path, PAIR, {flag: "http://h", "engine.on_exit": "stop"})
    assert problem.startswith("exporter.toml:7: engines: there is an engine.")
    assert "move it into an entry of [[engines]]" in problem


def test_mistakes_are_told_by_the_name_of_the_engine_and_their_line(tmp_path: Path):
    text = '[[engines]]\nname = "a"\ncommand = "x"\nrestart_dela = 3\ndrain_timeout = "k"\n\n[[engines]]\nname = "a/b"\nurl = "http://h"\n'
    assert problems(tmp_path, text) == [
        "exporter.toml:5: engines[a].drain_timeout: Input should be a valid number, unable to parse string as a number",
        "exporter.toml:4: engines[a].restart_dela: no such setting restart_dela; did you mean restart_delay?",
        "exporter.toml:8: engines[a/b].name: 'a/b' is no name: up to 64 letters, digits, `_`, `.` and `-`",
    ]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"name": "a"}], "a command or a url is missing"),
        ([{"command": "x"}], "Field required"),
        ([{"name": "..", "command": "x"}], "'..' is no name"),
        ([{"name": "a", "command": "x", "gpus": ["first"]}], "'first' is no GPU"),
        ([{"name": "a", "command": "x", "gpus": [True]}], "valid string"),
        ([{"name": "a", "command": "x", "gpus": [0, 0]}], "the same GPU twice"),
        ([{"name": "a", "url": "http://h", "gpus": [0]}], "gpus needs a command"),
        ([{"name": "a", "command": "x"}, {"name": "a", "command": "y"}], "several engines are named a"),
        ([{"name": "a", "command": "x"}, {"name": "A", "command": "y"}], "upper and lower case"),
        ([{"name": "box", "command": "x"}], "an engine is named box, as the daemon is"),
        ({"name": "a"}, "expected a list of engines"),
        ("a", "expected a JSON list of engines"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, entries: object, message: str):
    text = entries if isinstance(entries, str) else json.dumps(entries)
    (problem,) = problems(tmp_path, '[rules]\ninstance = "box"\n', {"engines": text})
    assert problem.startswith("flag --set engines: ")
    assert message in problem


def test_the_environment_gives_engines_as_json():
    variables = {"VLLM_EXPORTER_ENGINES": '[{"name": "a", "command": "vllm serve x", "gpus": 3}]'}
    (engine,) = load_settings(environ=variables).engines
    assert (engine.name, engine.command, engine.gpus) == ("a", ("vllm", "serve", "x"), ("3",))


def test_a_yaml_file_has_a_list(tmp_path: Path):
    path = tmp_path / "exporter.yaml"
    path.write_text("engines:\n- name: a\n  command: vllm serve x\n  gpus: [0]\n", encoding="utf-8")
    (engine,) = load_settings(config=path, environ={}).engines
    assert (engine.name, engine.gpus) == ("a", ("0",))


def test_an_entry_may_have_its_own_key_where_all_share_one_from_a_file(tmp_path: Path):
    (tmp_path / "key").write_text("common\n")
    text = f'[engine]\napi_key_file = "{tmp_path}/key"\n[[engines]]\nname = "a"\ncommand = "x"\n[[engines]]\nname = "b"\ncommand = "x"\napi_key = "own"\n'
    keys = [engine.api_key.get_secret_value() for engine in load(tmp_path, text).engines if engine.api_key]
    assert keys == ["common", "own"]


def test_the_shown_configuration_has_every_engine_and_can_be_loaded_again(tmp_path: Path):
    settings = load(tmp_path, PAIR)
    shown = as_toml(settings)
    assert (
        '[[engines]]\nname = "a"\ngpus = ["0", "1"]\ncommand = ["vllm", "serve", "x"]\nrestart_delay = 100.0\n'
        in shown
    )
    assert load(tmp_path, shown).engines == settings.engines


def test_secrets_of_an_entry_are_masked(tmp_path: Path):
    text = '[[engines]]\nname = "a"\ncommand = "vllm serve x --api-key s3cr3t"\napi_key = "s3cr3t"\n'
    shown = as_toml(load(tmp_path, text))
    assert "s3cr3t" not in shown
    assert '# api_key = "********"' in shown.partition("[[engines]]")[2]


def test_gpus_of_two_engines_are_known(tmp_path: Path):
    text = "".join(
        f'[[engines]]\nname = "{name}"\ncommand = "x"\ngpus = {gpus}\n'
        for name, gpus in (("a", [0, 1]), ("b", [1, 2]), ("c", []))
    )
    assert shared_gpus(load(tmp_path, text).engines) == {"1": ("a", "b")}
