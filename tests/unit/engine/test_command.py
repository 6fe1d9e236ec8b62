"""The engine's command line is read as vLLM and the shell read it, and its secrets stay inside."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from exporter.engine.command import EngineCommand, mask, read_command
from exporter.engine.secrets import is_secret_name
from exporter.errors import ConfigError


def read(
    *argv: str,
    env: Mapping[str, str] | None = None,
    url: str | None = None,
    files: Mapping[str, str] | None = None,
) -> EngineCommand:
    def read_file(path: str) -> str:
        if files is None or path not in files:
            raise FileNotFoundError(2, "No such file or directory", path)
        return files[path]

    return read_command(argv, env or {}, url=url, read_file=read_file)


@pytest.mark.parametrize(
    ("argv", "base_url"),
    [
        ("vllm serve M", "http://127.0.0.1:8000"),
        ("vllm serve M --port 9000", "http://127.0.0.1:9000"),
        ("vllm serve M --port=9000", "http://127.0.0.1:9000"),
        ("vllm serve --port 9000 --port 9001 M", "http://127.0.0.1:9001"),
        ("vllm serve M --host 0.0.0.0 --port 1", "http://127.0.0.1:1"),
        ("vllm serve M --host ::", "http://[::1]:8000"),
        ("vllm serve M --host ::1", "http://[::1]:8000"),
        ("vllm serve M --host 10.1.2.3", "http://10.1.2.3:8000"),
        ("vllm serve M --host=localhost", "http://localhost:8000"),
        ("vllm serve M --uvicorn-log-level debug --port 7", "http://127.0.0.1:7"),
        ("vllm serve M --ssl-keyfile k --ssl-certfile c", "https://127.0.0.1:8000"),
        ("vllm serve M --ssl_certfile c", "https://127.0.0.1:8000"),
        ("python -m vllm.entrypoints.openai.api_server --model M --port 9000", "http://127.0.0.1:9000"),
        ("uv run --with vllm vllm serve M --port 9000", "http://127.0.0.1:9000"),
        ("uv run --port 1 vllm serve M --port 9000", "http://127.0.0.1:9000"),
        ("/opt/venv/bin/vllm serve M --port 9000", "http://127.0.0.1:9000"),
        ("numactl -N 0 nice -n 5 vllm serve M --port 9000", "http://127.0.0.1:9000"),
        ("python -m exporter simulate --port 9000", "http://127.0.0.1:9000"),
        ("vllm-exporter simulate --port 9000 --host 127.0.0.1", "http://127.0.0.1:9000"),
        ("my-own-server --port 9000", "http://127.0.0.1:9000"),
    ],
)
def test_the_listening_address_is_found(argv: str, base_url: str) -> None:
    assert read(*argv.split()).base_url == base_url


@pytest.mark.parametrize(
    ("script", "base_url"),
    [
        ("vllm serve M --port 9000", "http://127.0.0.1:9000"),
        ("exec vllm serve M --port 9000", "http://127.0.0.1:9000"),
        ("source venv/bin/activate && exec vllm serve 'M x' --port 9000; echo done", "http://127.0.0.1:9000"),
        ("export PORT=9000\nvllm serve M \\\n  --port $PORT 2>&1", "http://127.0.0.1:9000"),
        ('vllm serve M --port "${PORT:-9001}"', "http://127.0.0.1:9001"),
        ("vllm serve M --port $OUTSIDE", "http://127.0.0.1:7777"),
        ('bash -c "vllm serve M --port 9000"', "http://127.0.0.1:9000"),
    ],
)
def test_a_shell_script_is_read_for_the_server_in_it(script: str, base_url: str) -> None:
    assert read("bash", "-lc", script, env={"OUTSIDE": "7777"}).base_url == base_url


def test_a_variable_that_nobody_set_is_a_mistake_that_names_the_way_out() -> None:
    with pytest.raises(ConfigError, match=r"cannot know the value of --port \$UNSET; set engine\.url"):
        read("sh", "-c", "vllm serve M --port $UNSET")
    assert read("sh", "-c", "vllm serve M --port $UNSET", url="http://h:1/").base_url == "http://h:1"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("", "empty"),
        ("vllm serve M --port", "needs a number"),
        ("vllm serve M --port abc", "'abc' is not a number"),
        ("vllm serve M --port 0", "not between 1 and 65535"),
        ("vllm serve M --port 70000", "not between 1 and 65535"),
        ("vllm serve M --uds /tmp/s", "Unix socket"),
        ("vllm serve M --headless", "no API server"),
        ("vllm serve M --config absent.yaml", "absent.yaml: No such file"),
    ],
)
def test_a_command_that_cannot_be_right_is_refused(argv: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(*argv.split())


@pytest.mark.parametrize("text", ["port: [", "- 1\n- 2"])
def test_a_config_file_that_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--config c\.yaml"):
        read("vllm", "serve", "--config", "c.yaml", files={"c.yaml": text})


def test_an_unclosed_quote_in_a_script_is_refused() -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read("bash", "-c", "vllm serve 'M")


def test_the_config_file_counts_and_the_command_line_wins() -> None:
    files = {"c.yaml": "model: N\nport: 9000\nhost: 0.0.0.0\nserved_model_name: [a, b]\nenable-lora: true\n"}
    command = read("vllm", "serve", "--config", "c.yaml", files=files)
    assert command.base_url == "http://127.0.0.1:9000"
    assert command.served_models == ("a", "b")
    assert (
        read("vllm", "serve", "--config=c.yaml", "--port", "1", files=files).base_url == "http://127.0.0.1:1"
    )


@pytest.mark.parametrize(
    ("argv", "models"),
    [
        ("vllm serve M", ("M",)),
        ("vllm serve M --served-model-name a b --port 1", ("a", "b")),
        ("vllm serve M --served_model_name=a", ("a",)),
        ("vllm serve --dtype float32 M", ("M",)),
        ("python -m vllm.entrypoints.openai.api_server --model M", ("M",)),
        ("something else", ()),
    ],
)
def test_the_served_models_are_found(argv: str, models: tuple[str, ...]) -> None:
    assert read(*argv.split()).served_models == models


def key_of(command: EngineCommand) -> str | None:
    return command.api_key.get_secret_value() if command.api_key else None


def test_the_api_key_comes_from_the_flag_then_from_the_environment() -> None:
    env = {"VLLM_API_KEY": "from-env"}
    assert key_of(read("vllm", "serve", "M", "--api-key", "one", "two", env=env)) == "one"
    assert key_of(read("vllm", "serve", "M", "--api_key=one", env=env)) == "one"
    assert key_of(read("vllm", "serve", "M", env=env)) == "from-env"
    assert key_of(read("env", "VLLM_API_KEY=inner", "vllm", "serve", "M", env=env)) == "inner"
    assert key_of(read("bash", "-c", "VLLM_API_KEY=inner vllm serve M", env=env)) == "inner"
    assert key_of(read("vllm", "serve", "M")) is None


def test_a_key_on_the_command_line_earns_a_remark() -> None:
    assert "VLLM_API_KEY" in read("vllm", "serve", "M", "--api-key", "one").remarks[0]
    assert read("vllm", "serve", "M", env={"VLLM_API_KEY": "x"}).remarks == ()


@pytest.mark.parametrize(
    "argv",
    [
        ("vllm", "serve", "M", "--api-key", "s3cr3t-1"),
        ("vllm", "serve", "M", "--api-key", "other", "s3cr3t-1"),
        ("vllm", "serve", "M", "--api-key=s3cr3t-1"),
        ("vllm", "serve", "M", "--hf-token", "s3cr3t-1"),
        ("vllm", "serve", "M", "--hf_token=s3cr3t-1"),
        ("env", "HF_TOKEN=s3cr3t-1", "vllm", "serve", "M"),
        ("env", "AWS_SECRET_ACCESS_KEY=s3cr3t-1", "vllm", "serve", "M"),
        ("bash", "-c", "VLLM_API_KEY=s3cr3t-1 vllm serve M"),
        ("bash", "-c", "vllm serve M --api-key s3cr3t-1"),
        ("vllm", "serve", "M", "--kv-transfer-config", '{"url": "redis://me:s3cr3t-1@host/0"}'),
        ("vllm", "serve", "M", "--otlp-traces-endpoint", "http://user:s3cr3t-1@host:4317"),
        ("vllm", "serve", "M", "--override", '{"api_key": "s3cr3t-1"}'),
        ("sh", "-c", "bash -c 'vllm serve M --api-key s3cr3t-1'"),
    ],
)
def test_no_form_of_a_secret_is_shown(argv: tuple[str, ...]) -> None:
    command = read(*argv)
    assert "s3cr3t-1" not in " ".join(command.masked_argv)
    assert "s3cr3t-1" not in repr(command)
    assert "s3cr3t-1" not in command.line
    assert "***" in command.line
    assert "s3cr3t-1" in " ".join(command.argv)


def test_secrets_of_the_environment_are_known_to_the_mask() -> None:
    command = read("vllm", "serve", "M", env={"HF_TOKEN": "tok-en-1234", "PATH": "/bin", "EMPTY_TOKEN": ""})
    assert command.secrets == ("tok-en-1234",)
    assert mask("got tok-en-1234 from PATH /bin", command.secrets) == "got *** from PATH /bin"


@pytest.mark.parametrize(
    "argv",
    [
        "vllm serve M --max-num-batched-tokens 8192 --tokenizer org/tok --ssl-keyfile /etc/key.pem",
        "vllm serve M --enable-prompt-tokens-details --tokenizer-mode auto",
        "vllm serve M --max-logprobs 5 --key-cache-type fp8",
    ],
)
def test_ordinary_flags_stay_readable(argv: str) -> None:
    assert read(*argv.split()).line == argv


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("'api_key': ['abcdef'], 'port': 1", "'api_key': ['***'], 'port': 1"),
        ("'api_key': None", "'api_key': None"),
        ("Authorization: Bearer abcdef.ghi", "Authorization: Bearer ***"),
        ("token hf_abcdefghijklmnopqrstuv!", "token ***!"),
        ("see https://user:pw@example.org/x", "see https://user:***@example.org/x"),
        ("vllm serve M --api-key abc --port 1", "vllm serve M --api-key *** --port 1"),
        ("redis://:pw@host", "redis://:***@host"),
        ("the token stream and its secret sauce", "the token stream and its secret sauce"),
        ("time to first token: 12.5 s", "time to first token: 12.5 s"),
        ("AWS_SECRET_ACCESS_KEY=abcdef", "AWS_SECRET_ACCESS_KEY=***"),
        ("prompt throughput: 10.0 tokens/s", "prompt throughput: 10.0 tokens/s"),
        ("GPU KV cache size: 1,048 tokens", "GPU KV cache size: 1,048 tokens"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
    ],
)
def test_what_looks_like_a_secret_is_masked_in_text(text: str, shown: str) -> None:
    assert mask(text) == shown


def test_a_nul_byte_is_refused() -> None:
    with pytest.raises(ConfigError, match="NUL"):
        read("vllm", "serve", "a\0b")


def test_a_config_file_that_only_the_engine_can_see_does_no_harm_when_the_url_is_given() -> None:
    command = read(
        "docker", "run", "vllm", "serve", "--config", "/in/there.yaml", url="http://127.0.0.1:8001"
    )
    assert command.base_url == "http://127.0.0.1:8001"


def test_common_words_are_no_secrets() -> None:
    assert (
        read("vllm", "serve", "M", env={"USE_TOKEN": "true", "MY_KEY": "None", "A_KEY": "abc"}).secrets == ()
    )


@pytest.mark.parametrize(
    "name", ["--hf-token", "HF_TOKEN", "HFToken", "api_key", "dbPassword", "AWS_SECRET_ACCESS_KEY"]
)
def test_names_of_secrets_are_known(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["--tokenizer", "--max-tokens", "--ssl-keyfile", "MONKEY", "KEYBOARD", "TOKEN_COUNT"]
)
def test_names_of_other_things_are_not(name: str) -> None:
    assert not is_secret_name(name)
