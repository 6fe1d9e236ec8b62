"""A real Prometheus, filled with exactly the samples that a test wants it to have, and asked over its HTTP API."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlencode

Labels = tuple[tuple[str, str], ...]
Sample = tuple[int, int]
"""A time in milliseconds and the bits of a value: a staleness marker is a NaN that arithmetic must not touch."""

PROGRAM = shutil.which("prometheus")
PATIENCE_SECONDS = 60.0


class Prometheus:
    """One run of it on a free port; ended at last, whatever the test did. Without scrapes it holds what is pushed."""

    def __init__(self, folder: Path, *, config: str = "global: {evaluation_interval: 1m}\n") -> None:
        assert PROGRAM is not None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        (folder / "prometheus.yml").write_text(config)
        self._log = (folder / "prometheus.log").open("w+")
        self._process = subprocess.Popen(
            [
                PROGRAM,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                "--storage.tsdb.retention.time=100y",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--web.enable-remote-write-receiver",
                "--log.level=warn",
            ],
            stdout=self._log,
            stderr=self._log,
            cwd=folder,
        )
        self._connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)

    def __enter__(self) -> Self:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                if self._get("/-/ready") == 200:
                    return self
            except OSError:
                self._connection.close()
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._log.seek(0)
                log = self._log.read()
                self.__exit__(None, None, None)
                raise AssertionError(f"Prometheus is not ready:\n{log}")
            time.sleep(0.05)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        self._process.kill()
        self._process.wait()
        self._log.close()

    def write(self, series: Mapping[Labels, Sequence[Sample]]) -> None:
        """Push samples by remote write; the times of a series must rise from call to call."""
        body = snappy(write_request(series))
        headers = {
            "Content-Type": "application/x-protobuf",
            "Content-Encoding": "snappy",
            "X-Prometheus-Remote-Write-Version": "0.1.0",
        }
        self._connection.request("POST", "/api/v1/write", body, headers)
        with self._connection.getresponse() as response:
            answer = response.read().decode()
            assert response.status == 204, f"{response.status}: {answer}"

    def ask(self, path: str, **fields: object) -> dict[str, Any]:
        """The answer of its API, of which `status` says whether it is an error."""
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        self._connection.request("POST", f"/api/v1/{path}", urlencode(fields), headers)
        with self._connection.getresponse() as response:
            answer: dict[str, Any] = json.loads(response.read())
        return answer

    def _get(self, path: str) -> int:
        self._connection.request("GET", path)
        with self._connection.getresponse() as response:
            response.read()
            return response.status


def write_request(series: Mapping[Labels, Sequence[Sample]]) -> bytes:
    """A `prometheus.WriteRequest` of the first remote-write protocol (prompb/remote.proto and types.proto)."""
    parts = []
    for labels, samples in series.items():
        message = b"".join(
            _field(1, _field(1, name.encode()) + _field(2, value.encode())) for name, value in labels
        )
        message += b"".join(
            _field(2, b"\x09" + struct.pack("<Q", bits) + b"\x10" + _varint(t)) for t, bits in samples
        )
        parts.append(_field(1, message))
    return b"".join(parts)


def snappy(data: bytes) -> bytes:
    """Snappy's block format with stored literals alone (format_description.txt in google/snappy)."""
    pieces = [_varint(len(data))]
    for at in range(0, len(data), 1 << 16):
        literal = data[at : at + (1 << 16)]
        pieces += (b"\xf4", struct.pack("<H", len(literal) - 1), literal)
    return b"".join(pieces)


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    octets = bytearray()
    while value > 0x7F:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def by_labels(result: Iterable[Mapping[str, Any]]) -> dict[Labels, list[tuple[float, float]]]:
    """Series of a vector or matrix answer, their points as numbers; AssertionError for two of the same labels."""
    found: dict[Labels, list[tuple[float, float]]] = {}
    for one in result:
        labels = tuple(sorted(one["metric"].items()))
        assert labels not in found, f"twice: {labels}"
        points = one["values"] if "values" in one else [one["value"]]
        found[labels] = [(float(t), float(value)) for t, value in points]
    return found
