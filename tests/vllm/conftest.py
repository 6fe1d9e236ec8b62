"""A real vLLM on the CPU for these tests: `VLLM_EXPORTER_TEST_VLLM` is the path of its `vllm` command.

`make test-vllm` makes one and runs them; without the variable they are skipped.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))  # the modules that these tests share

import environment
from real_engine import Daemon


@pytest.fixture(scope="session")
def vllm() -> Path:
    given = os.environ.get("VLLM_EXPORTER_TEST_VLLM")
    if not given:
        pytest.skip("VLLM_EXPORTER_TEST_VLLM names no vllm command; make test-vllm does")
    path = Path(given).absolute()
    assert path.exists(), f"VLLM_EXPORTER_TEST_VLLM: there is no {path}"
    return path


@pytest.fixture(scope="session")
def model(vllm: Path) -> Path:
    environment.MODEL.parent.mkdir(parents=True, exist_ok=True)
    environment.make_model(vllm.with_name("python"), environment.MODEL)
    return environment.MODEL


@pytest.fixture(scope="module")
def make_daemon(
    vllm: Path, model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., Daemon]]:
    """Makes daemons that are not started yet, and ends at last what they have left."""
    made: list[Daemon] = []

    def make(*flags: str, **options: Any) -> Daemon:
        daemon = Daemon(
            vllm, options.pop("model", model), tmp_path_factory.mktemp("daemon"), *flags, **options
        )
        made.append(daemon)
        return daemon

    yield make
    for daemon in made:
        daemon.close()
