"""The real pynvml over a library that answers from a description of the devices."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pynvml
import pytest

from exporter.gpu.replay import ReplayLibrary

DEVICES = Path(__file__).parent / "devices"


@pytest.fixture
def description() -> Callable[[str], dict[str, Any]]:
    def read(name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((DEVICES / f"{name}.json").read_text())
        return found

    return read


@pytest.fixture
def install(
    monkeypatch: pytest.MonkeyPatch, description: Callable[[str], dict[str, Any]]
) -> Iterator[Callable[..., ReplayLibrary]]:
    """Give pynvml a library made from a description; `copies` makes a machine with several such GPUs."""

    def put(name: str, copies: int = 1) -> ReplayLibrary:
        capture = description(name)
        if copies > 1:
            model = capture["devices"][0]
            capture["devices"] = [copy.deepcopy(model) for _ in range(copies)]
            for index, device in enumerate(capture["devices"]):
                device["nvmlDeviceGetUUID"] = f"GPU-00000000-0000-0000-0000-{index:012d}"
        library = ReplayLibrary(capture)
        monkeypatch.setattr(pynvml, "nvmlLib", library)
        pynvml._nvmlGetFunctionPointer_cache.clear()
        return library

    yield put
    pynvml._nvmlGetFunctionPointer_cache.clear()
