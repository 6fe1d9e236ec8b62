from __future__ import annotations

import argparse

import pytest

from exporter.simulator.console import Model, load_lines, refusals
from exporter.simulator.options import REFUSALS, Options, add_arguments, read


def options(*argv: str) -> Options:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return read(parser.parse_args(argv))


def test_the_flags_of_vllm_mean_what_they_mean_there() -> None:
    read = options("org/model", "--served-model-name", "a", "b", "--api-key", "k", "--max-model-len", "256", "--data-parallel-size", "2", "--no-enable-prefix-caching")  # fmt: skip
    assert (read.model, read.served, read.api_keys, read.ranks) == ("org/model", ("a", "b"), ("k",), 2)
    assert (read.shape.max_model_len, read.shape.prefix_caching) == (256, False)


def test_the_model_is_served_under_its_own_name_unless_another_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "from-environment")
    read = options("--model", "m")
    assert (read.served, read.api_keys) == (("m",), ("from-environment",))


@pytest.mark.parametrize(
    "argv", [["--port", "70000"], ["--no-such-flag"], ["--fault", "nope"], ["--fail", "nope"], ["--max-num-seqs", "0"], ["--traffic", "-1"], ["--reply-tokens", "nan"]]
)  # fmt: skip
def test_a_wrong_flag_exits_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        options(*argv)
    assert caught.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_a_cache_too_small_for_one_sequence_is_refused() -> None:
    with pytest.raises(ValueError, match="KV cache"):
        options("--num-gpu-blocks-override", "4")


MODEL = Model("m", ("m",), "127.0.0.1", 8000, 1024, 2048, 32768)


def test_every_refusal_that_the_command_line_offers_has_an_output() -> None:
    assert set(refusals(MODEL)) == set(REFUSALS)


def test_the_lines_of_a_load_come_in_order_and_end_at_its_end() -> None:
    lines = list(load_lines(MODEL, 20.0))
    times = [line.at for line in lines]
    assert times == sorted(times)
    assert (times[0], times[-1]) == (0.0, 1.0)
    shards = [line.text for line in lines if "checkpoint shards" in line.text]
    assert [text.split("% ")[0].split()[-1] for text in shards] == ["0", "25", "50", "75", "100"]
