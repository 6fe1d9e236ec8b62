"""An NVML library that answers from a capture, and one that makes captures.

Both stand where nvidia-ml-py keeps its library handle, so that everything above the C functions is the real thing.
A capture is JSON:

    {"origin": "captured on …" | "written from the NVML reference, not captured",
     "system": {"nvmlSystemGetDriverVersion": "580.95.05", …},
     "devices": [{"nvmlDeviceGetPowerUsage": 412345,
                  "nvmlDeviceGetUtilizationRates": {"gpu": 87, "memory": 40},
                  "nvmlDeviceGetClockInfo": {"by": {"1": 1980, "2": 2619}},
                  "nvmlDeviceGetFanSpeed": {"error": 3},
                  "nvmlDeviceGetFieldValues": {"by": {"82:0": {"type": 1, "value": 71}, "83:0": {"error": 3}}},
                  "nvmlDeviceGetComputeRunningProcesses_v3": [{"pid": 4711, "usedGpuMemory": 70000000000}],
                  "mig": [{…}, …]}]}

An out-parameter is a number, a struct a dict of its fields, several out-parameters a list; `by` chooses by the call's
number argument; an error is NVML's return code. A function that is not listed is not supported.
"""

from __future__ import annotations

import ctypes
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

NOT_SUPPORTED = 3
_FIELD_MEMBERS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
_PROCESSES = "nvmlDeviceGetComputeRunningProcesses"


def is_out(argument: Any) -> bool:
    """Whether a C argument is an out-parameter: something passed by reference, or a character buffer."""
    return type(argument).__name__ == "CArgObject" or isinstance(argument, ctypes.Array)


def target(argument: Any) -> Any:
    """The ctypes object behind an out-parameter."""
    return argument._obj if type(argument).__name__ == "CArgObject" else argument


def number(argument: Any) -> int | None:
    """A number argument, plain or in a ctypes box; None for anything else."""
    value = getattr(argument, "value", argument)
    return value if isinstance(value, int) else None


class ReplayLibrary:
    """Answers NVML calls from a capture; `capture` may be changed while it runs, to let things happen.

    `calls` counts calls by function, `init_error` and `errors` (function -> code, for every device) override answers,
    `lost` holds the indexes of devices that have fallen off the bus. After `reload` old handles mean nothing.
    """

    def __init__(self, capture: dict[str, Any]) -> None:
        self.capture = capture
        self.calls: Counter[str] = Counter()
        self.init_error = 0
        self.errors: dict[str, int] = {}
        self.lost: set[int] = set()
        self.absent: set[str] = set()
        """Functions that an older library does not have."""
        self.events: deque[tuple[int, int]] = deque()
        """Device index and XID of events to come."""
        self.initialised = 0
        self._generation = 1

    def reload(self) -> None:
        """Unload and load the driver: sessions end, handles become stale, counters of the device begin anew."""
        self._generation += 1
        self.initialised = 0

    def __getattr__(self, name: str) -> Callable[..., int]:
        if name.startswith("_") or not name.startswith("nvml") or name in self.absent:
            raise AttributeError(name)
        special: Callable[..., int] | None = getattr(type(self), f"_do_{name}", None)

        def call(*arguments: Any) -> int:
            self.calls[name] += 1
            if name in self.errors:
                return self.errors[name]
            if special is not None:
                return special(self, *arguments)
            if not self.initialised and not name.startswith("nvmlInit"):
                return 1
            return self._answer(name, arguments)

        return call

    def _do_nvmlInitWithFlags(self, flags: Any) -> int:  # noqa: N802
        if self.init_error:
            return self.init_error
        self.initialised += 1
        return 0

    def _do_nvmlShutdown(self) -> int:  # noqa: N802
        if not self.initialised:
            return 1
        self.initialised -= 1
        return 0

    def _do_nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        if not self.initialised:
            return 1
        target(count).value = len(self.capture["devices"])
        return 0

    def _do_nvmlDeviceGetHandleByIndex_v2(self, index: Any, out: Any) -> int:  # noqa: N802
        place = number(index)
        assert place is not None
        if not self.initialised:
            return 1
        if place in self.lost:
            return 15
        refused = self.capture["devices"][place].get("nvmlDeviceGetHandleByIndex_v2")
        if isinstance(refused, dict):
            return int(refused["error"])
        self._point(out, place, 0)
        return 0

    def _do_nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Any, index: Any, out: Any) -> int:  # noqa: N802
        found = self._find(handle)
        place = number(index)
        assert place is not None
        if isinstance(found, int):
            return found
        if place >= len(found.get("mig", ())):
            return 6
        self._point(out, ctypes.cast(handle, ctypes.c_void_p).value >> 8 & 0xFFFF, place + 1)  # type: ignore[operator]
        return 0

    def _do_nvmlEventSetCreate(self, out: Any) -> int:  # noqa: N802
        return 0 if self.initialised else 1

    def _do_nvmlEventSetFree(self, events: Any) -> int:  # noqa: N802
        return 0

    def _do_nvmlDeviceRegisterEvents(self, handle: Any, types: Any, events: Any) -> int:  # noqa: N802
        found = self._find(handle)
        return found if isinstance(found, int) else 0

    def _do_nvmlEventSetWait_v2(self, events: Any, out: Any, timeout: Any) -> int:  # noqa: N802
        if not self.initialised:
            return 1
        if not self.events:
            time.sleep(min(float(number(timeout) or 0) / 1000, 0.02))
            return 10
        place, xid = self.events.popleft()
        data = target(out)
        ctypes.c_void_p.from_buffer(data, type(data).device.offset).value = self._address(place, 0)
        data.eventType = 8
        data.eventData = xid
        return 0

    def _answer(self, name: str, arguments: tuple[Any, ...]) -> int:
        if name.startswith("nvmlSystem"):
            return self._fill(self.capture["system"].get(name, {"error": NOT_SUPPORTED}), arguments)
        found = self._find(arguments[0])
        if isinstance(found, int):
            return found
        answer = found.get(name, {"error": NOT_SUPPORTED})
        if name == "nvmlDeviceGetFieldValues" and "by" in answer:
            return self._fill_fields(answer["by"], target(arguments[2]))
        if name.startswith(_PROCESSES) and isinstance(answer, list):
            return self._fill_processes(answer, target(arguments[1]), arguments[2])
        return self._fill(answer, arguments[1:])

    def _fill(self, answer: Any, arguments: tuple[Any, ...]) -> int:
        if isinstance(answer, dict) and "by" in answer:
            key = next(number(one) for one in arguments if not is_out(one))
            answer = answer["by"].get(str(key), {"error": NOT_SUPPORTED})
        if isinstance(answer, dict) and "error" in answer:
            return int(answer["error"])
        outs = [target(one) for one in arguments if is_out(one)]
        answers = answer if isinstance(answer, list) else [answer]
        for out, value in zip(outs, answers, strict=True):
            if isinstance(value, dict):
                for key, part in value.items():
                    setattr(out, key, part.encode() if isinstance(part, str) else part)
            else:
                out.value = value.encode() if isinstance(value, str) else value
        return 0

    @staticmethod
    def _fill_fields(answers: dict[str, Any], values: Any) -> int:
        for one in values:
            answer = answers.get(f"{one.fieldId}:{one.scopeId}", {"error": NOT_SUPPORTED})
            one.nvmlReturn = answer.get("error", 0)
            if not one.nvmlReturn:
                one.valueType = answer["type"]
                setattr(one.value, _FIELD_MEMBERS[answer["type"]], answer["value"])
        return 0

    @staticmethod
    def _fill_processes(processes: list[dict[str, int]], count: Any, array: Any) -> int:
        room, count.value = count.value, len(processes)
        if room < len(processes) or (processes and array is None):
            return 7
        for out, process in zip(array or (), processes, strict=False):
            for key, value in process.items():
                setattr(out, key, value)
        return 0

    def _address(self, place: int, mig: int) -> int:
        return self._generation << 24 | place << 8 | mig << 1 | 1

    def _point(self, out: Any, place: int, mig: int) -> None:
        ctypes.c_void_p.from_buffer(target(out)).value = self._address(place, mig)

    def _find(self, handle: Any) -> Any:
        """The description behind a handle, or the error code that its use gets."""
        address = ctypes.cast(handle, ctypes.c_void_p).value or 0
        if not self.initialised:
            return 1
        if address >> 24 != self._generation:
            return 2
        place, mig = address >> 8 & 0xFFFF, address >> 1 & 0x7F
        if place in self.lost:
            return 15
        device = self.capture["devices"][place]
        return device["mig"][mig - 1] if mig else device


class RecordingLibrary:
    """Passes every call on to a real library and keeps its latest answer, in the form that ReplayLibrary reads.

    UUIDs become made-up ones; nothing else in the answers names a machine or a card.
    """

    def __init__(self, library: Any) -> None:
        self.capture: dict[str, Any] = {"origin": "captured", "system": {}, "devices": []}
        self._library = library
        self._homes: dict[int, dict[str, Any]] = {}
        self._uuids = 0

    def __getattr__(self, name: str) -> Callable[..., int]:
        function = getattr(self._library, name)

        def call(*arguments: Any) -> int:
            code = int(function(*arguments))
            self._record(name, arguments, code)
            return code

        return call

    def _record(self, name: str, arguments: tuple[Any, ...], code: int) -> None:
        if name == "nvmlDeviceGetHandleByIndex_v2":
            devices = self.capture["devices"]
            place = number(arguments[0]) or 0
            while len(devices) <= place:
                devices.append({})
            if code:
                devices[place][name] = {"error": code}
            else:
                self._homes[_handle(target(arguments[1]))] = devices[place]
        elif name == "nvmlDeviceGetMigDeviceHandleByIndex":
            if not code:
                instances = self._homes[_handle(arguments[0])].setdefault("mig", [])
                place = number(arguments[1]) or 0
                while len(instances) <= place:
                    instances.append({})
                self._homes[_handle(target(arguments[2]))] = instances[place]
        elif name.startswith("nvmlSystem"):
            self.capture["system"][name] = self._outs(name, arguments, code)
        elif name.startswith("nvmlDeviceGet") and arguments and not is_out(arguments[0]):
            home = self._homes.get(_handle(arguments[0]))
            if home is not None:
                self._record_device(home, name, arguments, code)

    def _record_device(self, home: dict[str, Any], name: str, arguments: tuple[Any, ...], code: int) -> None:
        if name.startswith(_PROCESSES):
            if arguments[2] is not None or code != 7:
                found = () if arguments[2] is None else arguments[2][: target(arguments[1]).value]
                home[name] = {"error": code} if code else [_struct(one) for one in found]
            return
        if name == "nvmlDeviceGetFieldValues":
            if code:
                home[name] = {"error": code}
                return
            by = home.setdefault(name, {"by": {}}).setdefault("by", {})
            for one in target(arguments[2]):
                by[f"{one.fieldId}:{one.scopeId}"] = _field(one)
            return
        keys = [
            number(one)
            for one in arguments[1:]
            if not is_out(one)
            and "String" not in name
            and name not in ("nvmlDeviceGetName", "nvmlDeviceGetUUID")
        ]
        answer = self._outs(name, arguments[1:], code)
        if keys:
            home.setdefault(name, {"by": {}})["by"][str(keys[0])] = answer
        else:
            home[name] = answer

    def _outs(self, name: str, arguments: tuple[Any, ...], code: int) -> Any:
        if code:
            return {"error": code}
        if name == "nvmlDeviceGetUUID":
            self._uuids += 1
            return f"GPU-00000000-0000-0000-0000-{self._uuids:012d}"
        outs = [_plain(target(one)) for one in arguments if is_out(one)]
        return outs[0] if len(outs) == 1 else outs


def _handle(handle: Any) -> int:
    return ctypes.cast(handle, ctypes.c_void_p).value or 0


def _plain(value: Any) -> Any:
    if isinstance(value, ctypes.Structure):
        return _struct(value)
    inner = value.value
    return inner.decode(errors="replace") if isinstance(inner, bytes) else inner


def _struct(value: Any) -> dict[str, Any]:
    fields = {key: getattr(value, key) for key, *_ in value._fields_}
    return {
        key: one.decode(errors="replace") if isinstance(one, bytes) else one for key, one in fields.items()
    }


def _field(value: Any) -> dict[str, Any]:
    if value.nvmlReturn:
        return {"error": value.nvmlReturn}
    return {"type": value.valueType, "value": getattr(value.value, _FIELD_MEMBERS[value.valueType])}
