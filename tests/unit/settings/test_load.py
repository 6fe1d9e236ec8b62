"""Where settings come from, which source wins, and what a mistake looks like."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.errors import ConfigError
from exporter.settings import Settings, load_settings, option_names
from exporter.settings.show import MASK, as_toml, settings_table


def write(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def problems_of(*args: object, **kwargs: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_settings(*args, **kwargs)
    return caught.value.problems


def test_defaults_need_no_source_at_all():
    settings = load_settings(environ={})
    assert settings.web.listen == "127.0.0.1:9108"
    assert settings.scrape.interval == 1.0
    assert settings.engine.on_exit == "stop"


def test_flags_win_over_environment_over_credentials_over_file(tmp_path: Path):
    config = write(
        tmp_path,
        "c.toml",
        '[web]\nlisten = ":1"\nbearer_token = "f"\n[gpu]\ninterval = 4\n[log]\nlevel = "error"\n',
    )
    write(tmp_path, "web.bearer_token", "from-systemd\n")
    settings = load_settings(
        {"web.listen": ":3"},
        config=config,
        environ={
            "VLLM_EXPORTER_WEB__LISTEN": ":2",
            "VLLM_EXPORTER_GPU__INTERVAL": "3",
            "CREDENTIALS_DIRECTORY": str(tmp_path),
        },
    )
    assert settings.web.listen == ":3"
    assert settings.gpu.interval == 3
    assert settings.log.level == "error"
    assert settings.web.bearer_token is not None
    assert settings.web.bearer_token.get_secret_value() == "from-systemd"


def test_yaml_and_toml_say_the_same(tmp_path: Path):
    toml = write(tmp_path, "c.toml", '[engine]\ncommand = ["vllm", "serve", "通义/千问"]\n')
    yaml = write(tmp_path, "c.yaml", "engine:\n  command: [vllm, serve, 通义/千问]\n")
    assert load_settings(config=toml, environ={}) == load_settings(config=yaml, environ={})


def test_a_command_and_bounds_may_be_one_string():
    settings = load_settings(
        environ={
            "VLLM_EXPORTER_ENGINE__COMMAND": "vllm serve 'a model'",
            "VLLM_EXPORTER_SLI__QUEUE_DURATION_BUCKETS": "0.5, 1,2",
        }
    )
    assert settings.engine.command == ("vllm", "serve", "a model")
    assert settings.sli.queue_duration_buckets == (0.5, 1.0, 2.0)


def test_every_mistake_is_told_at_once_with_its_place(tmp_path: Path):
    config = write(
        tmp_path,
        "c.toml",
        '[engine]\nurl = "ftp://x"\ndrain_timeot = 4\n\n[web]\ntls_key_file = "/x"\nlisten = "nowhere"\n',
    )
    problems = problems_of(
        {"log.level": "loud"}, config=config, environ={"VLLM_EXPORTER_GPU__INTERVAL": "soon"}
    )
    text = "\n".join(problems)
    assert f"{config}:2: engine.url: expected a URL" in text
    assert (
        f"{config}:3: engine.drain_timeot: no such setting engine.drain_timeot; did you mean engine.drain_timeout?"
        in text
    )
    assert f"{config}:7: web.listen: expected HOST:PORT" in text
    assert "flag --log-level: " in text
    assert "environment VLLM_EXPORTER_GPU__INTERVAL: " in text
    assert "tls_cert_file and tls_key_file go together" in text
    assert len(problems) == 6


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("c.toml", "= 3", "not valid TOML"),
        ("c.yaml", "a: [", "not valid YAML"),
        ("c.yaml", "- 1", "expected a mapping"),
        ("c.ini", "", "unknown kind of file"),
        ("c.toml", "engine = 3", "engine"),
    ],
)
def test_a_broken_file_is_a_clear_error(tmp_path: Path, name: str, text: str, expected: str):
    assert expected in problems_of(config=write(tmp_path, name, text), environ={})[0]


def test_a_missing_or_binary_file_is_a_clear_error(tmp_path: Path):
    assert "cannot read the config file" in problems_of(config=tmp_path / "none.toml", environ={})[0]
    binary = tmp_path / "b.toml"
    binary.write_bytes(b"\xff\xfe")
    assert "not UTF-8" in problems_of(config=binary, environ={})[0]


def test_variables_that_kubernetes_makes_for_a_service_of_our_name_are_no_settings():
    environ = {"VLLM_EXPORTER_PORT": "tcp://10.0.0.1:9108", "VLLM_EXPORTER_SERVICE_HOST": "10.0.0.1"}
    assert load_settings(environ=environ).web.listen == "127.0.0.1:9108"


def test_a_secret_comes_from_its_file_and_is_never_shown(tmp_path: Path):
    path = write(tmp_path, "key", "s3cret\n")
    settings = load_settings({"engine.api_key_file": str(path), "engine.url": "http://h:1"}, environ={})
    assert settings.engine.api_key is not None
    assert settings.engine.api_key.get_secret_value() == "s3cret"
    shown = as_toml(settings) + repr(settings)
    assert "s3cret" not in shown
    assert MASK in shown
    assert "both set" in problems_of({"engine.api_key_file": str(path), "engine.api_key": "x"}, environ={})[0]
    assert "cannot read" in problems_of({"engine.api_key_file": str(tmp_path / "no")}, environ={})[0]


def test_an_empty_systemd_credential_sets_nothing(tmp_path: Path):
    write(tmp_path, "web.bearer_token", "\n")
    assert load_settings(environ={"CREDENTIALS_DIRECTORY": str(tmp_path)}).web.bearer_token is None


def test_a_wrong_secret_is_not_printed_in_the_error():
    problems = problems_of(
        {"web.bearer_token": "t0ken", "web.listen": "nowhere"},
        environ={"VLLM_EXPORTER_ENGINE__URL": "http://u:hunter2@"},
    )
    assert "t0ken" not in str(problems)
    assert "hunter2" not in str(problems)


@pytest.mark.parametrize(
    "flags",
    [
        {"engine.url": "http://h:1", "engine.on_exit": "keep"},
        {"engine.restart_delay": 9, "engine.restart_delay_max": 3},
        {"scrape.interval": 0},
        {"scrape.interval": "nan"},
        {"scrape.interval": "inf"},
        {"engine.url": "http://h:99999"},
        {"engine.url": "http://h:1/?a=b"},
        {"engine.command": "'unclosed"},
        {"sli.error_ratio_buckets": "1,1"},
        {"sli.error_ratio_buckets": ""},
        {"nonsense": 1},
        {"engine.nonsense": 1},
        {"web.listen": "::1:80"},
        {"web.listen": "h:٣"},
        {"engine": "1"},
        {"engine.url": "http://exa mple:80"},
        {"engine.url": "http://bob:s3cret@h:1"},
        {"scrape.interval": "1e-9"},
        {"web.bearer_token": "  "},
        {"data_dir": ""},
        {"engine.api_key_file": "/dev/zero"},
    ],
)
def test_contradictions_and_nonsense_are_refused(flags: dict[str, object]):
    assert problems_of(flags, environ={})


def test_what_check_config_prints_loads_again_as_the_same_settings(tmp_path: Path):
    settings = load_settings(
        {"engine.command": ("vllm", "serve", 'a "quoted" 模型'), "data_dir": str(tmp_path)}, environ={}
    )
    again = load_settings(config=write(tmp_path, "again.toml", as_toml(settings)), environ={})
    assert again == settings


def test_secrets_on_the_engines_command_line_are_masked():
    command = ("vllm", "serve", "m", "--api-key", "s3cret", "--hf-token=s3cret")
    assert "s3cret" not in as_toml(load_settings({"engine.command": command}, environ={}))


def test_an_endless_config_file_is_refused(tmp_path: Path):
    endless = tmp_path / "c.toml"
    endless.symlink_to("/dev/zero")
    assert "longer than" in problems_of(config=endless, environ={})[0]


def test_options_that_do_not_go_together_are_not_blamed_on_a_flag_that_was_not_given():
    (problem,) = problems_of({"engine.url": "http://h:1", "engine.on_exit": "keep"}, environ={})
    assert problem.startswith("engine: on_exit = keep needs a command")


def test_log_levels_may_be_written_in_capitals():
    assert load_settings({"log.level": "WARNING"}, environ={}).log.level == "warning"


def test_every_option_is_described():
    table = settings_table()
    for name, option in option_names().items():
        assert option.description, name
        assert f"`{name}`" in table


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Settings().data_dir = Path("/elsewhere")


def test_a_table_may_be_given_as_json_on_the_command_line_and_in_the_environment():
    flags = {"gateway.model_tokens_per_minute": '{"通义": 5}', "rules.external_labels": '{"box": "a"}'}
    loaded = load_settings(flags, environ={"VLLM_EXPORTER_GATEWAY__MODEL_REQUESTS_PER_MINUTE": '{"m": 7}'})
    assert loaded.gateway.model_tokens_per_minute == {"通义": 5}
    assert loaded.gateway.model_requests_per_minute == {"m": 7}
    assert loaded.rules.external_labels == {"box": "a"}
    with pytest.raises(ConfigError, match="model_tokens_per_minute"):
        load_settings({"gateway.model_tokens_per_minute": "{m: 5}"}, environ={})
