"""`python -m exporter.gpu.capture > capture.json`: what NVML says on this machine, for replay in tests.

UUIDs are replaced, serial numbers never asked for. Every function that the exporter uses is called as it calls it.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from exporter.gpu.nvml import SLOW_SECONDS, STATIC_SECONDS, NvmlPort
from exporter.gpu.port import GpuUnavailableError
from exporter.gpu.replay import RecordingLibrary


def capture(nvml: Any) -> dict[str, Any]:
    """Read every field of every GPU once or twice through pynvml, and give the record; raises GpuUnavailableError."""
    try:
        nvml._LoadNvmlLibrary()
    except nvml.NVMLError as error:
        raise GpuUnavailableError("library_not_found", f"NVML does not start: {error}") from error
    library, recorder = nvml.nvmlLib, RecordingLibrary(nvml.nvmlLib)
    nvml.nvmlLib = recorder
    nvml._nvmlGetFunctionPointer_cache.clear()
    port = NvmlPort()
    try:
        driver = port.open(0.0)
        port.read(0.0)
        port.read_slow(SLOW_SECONDS)
        port.read_slow(STATIC_SECONDS + SLOW_SECONDS)
        port.read(0.5)
        recorder.capture["origin"] = f"captured through NVML, driver {driver.driver_version}"
        return recorder.capture
    finally:
        port.close()
        nvml.nvmlLib = library
        nvml._nvmlGetFunctionPointer_cache.clear()


def main() -> int:
    """Print the capture; 1 when there is no GPU to read."""
    import pynvml

    try:
        found = capture(pynvml)
    except GpuUnavailableError as error:
        print(f"no capture: {error}", file=sys.stderr)  # noqa: T201 - a command line prints
        return 1
    json.dump(found, sys.stdout, indent=1)
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
