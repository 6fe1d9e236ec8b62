"""The shipped rule files, judged by the real promtool and by ours: both accept them, and both see every test pass."""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

RULES = Path(__file__).parents[2] / "rules"
FILES = sorted(str(path) for path in RULES.glob("*.rules.yml"))
TESTS = sorted(str(path) for path in RULES.glob("*.test.yml"))
OURS = (sys.executable, "-m", "exporter")


@pytest.fixture(params=["promtool", "vllm-exporter"])
def tool(request: pytest.FixtureRequest) -> tuple[str, ...]:
    if request.param == "vllm-exporter":
        return OURS
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    return (promtool,)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=110)


def test_every_rule_file_has_its_tests_beside_it():
    tested = "".join(Path(path).read_text() for path in TESTS)
    for path in FILES:
        assert Path(path).name in tested


def test_the_rule_files_are_accepted(tool: tuple[str, ...]):
    done = run(*tool, "check", "rules", *FILES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout + done.stderr


def test_every_test_passes(tool: tuple[str, ...]):
    with ThreadPoolExecutor(2) as pool:
        for path, done in zip(
            TESTS, pool.map(lambda path: run(*tool, "test", "rules", path), TESTS), strict=True
        ):
            assert done.returncode == 0, f"{path}\n{done.stdout}{done.stderr}"


def test_a_test_that_expects_something_else_fails(tool: tuple[str, ...], tmp_path: Path):
    """That is, the tests are read."""
    shutil.copy(RULES / "queue.rules.yml", tmp_path)
    text = (RULES / "queue.test.yml").read_text()
    changed = tmp_path / "queue.test.yml"
    changed.write_text(text.replace("7 requests have been waiting", "8 requests have been waiting"))
    assert changed.read_text() != text
    done = run(*tool, "test", "rules", str(changed))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "VLLMHighQueueLength" in done.stdout + done.stderr


def test_the_command_line_makes_the_committed_rules(tmp_path: Path):
    made = tmp_path / "slos.rules.yml"
    done = run(*OURS, "rules", "generate", str(RULES / "slos.yml"), "--output", str(made))
    assert done.returncode == 0, done.stderr
    assert made.read_bytes() == (RULES / "slos.rules.yml").read_bytes()


def test_the_command_line_names_what_is_wrong_with_a_specification(tmp_path: Path):
    spec = tmp_path / "bad.yml"
    spec.write_text("version: prometheus/v1\nservice: shop\nslos: []\n")
    done = run(*OURS, "rules", "generate", str(spec))
    assert done.returncode == 2, done.stderr
    assert "bad.yml:3:7: slos: no objective" in done.stderr
    assert done.stdout == ""
