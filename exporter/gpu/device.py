"""One GPU of a session: which questions it answers, and its answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from exporter.gpu.port import Values
from exporter.gpu.probes import (
    FIELD_VALUES,
    MEMORY_CALLS,
    MEMORY_FIELDS,
    PROBES,
    Call,
    FieldValue,
    Pace,
    Probe,
    Verdict,
    field_value,
    judge,
)
from exporter.gpu.reading import GpuIdentity, MigReading, ProcessMemory


class DeviceLost(Exception):  # noqa: N818 - it says what happened
    """This GPU does not answer any more; `code` is NVML's, 999 when every reading failed."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class SessionLost(Exception):  # noqa: N818
    """The driver does not answer any more; `code` is NVML's."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class _Plan:
    """What is asked of one device at one pace; it shrinks as questions turn out to be unsupported."""

    def __init__(self, nvml: Any, pace: Pace) -> None:
        self.probes: list[tuple[Probe, int]] = [(probe, 0) for probe in PROBES if probe.pace is pace]
        self.batch: list[tuple[FieldValue, Any]] = [
            (field, (getattr(nvml, field.constant), field.scope))
            for field in FIELD_VALUES
            if field.pace is pace and hasattr(nvml, field.constant)
        ]
        self.worked: set[str] = set()
        self.answered = False


class Device:
    """Reads one GPU. Each pace belongs to one thread; the results of the slow ones are swapped in whole."""

    def __init__(self, nvml: Any, handle: Any, identity: GpuIdentity) -> None:
        self.identity = identity
        self.handle = handle
        self.lost: int | None = None
        """NVML's code since the device is lost."""
        self.slow: Values = {}
        """The latest answers of everything but the fast pace."""
        self._kept: dict[Pace | None, Values] = {}
        self._nvml = nvml
        self._plans = {pace: _Plan(nvml, pace) for pace in Pace}
        self._processes = True
        self._processes_worked = False
        self._mig: list[_MigInstance] = []

    def read(self, pace: Pace) -> Values:
        """Ask what is still worth asking at this pace; raises DeviceLost or SessionLost.

        A device that answered at the fast pace before, and now fails every question, counts as lost.
        """
        plan = self._plans[pace]
        values: Values = {}
        asked = len(plan.probes) + len(plan.batch)
        for probe, call in list(plan.probes):
            self._ask(plan, probe, call, values)
        if plan.batch:
            self._ask_batch(plan, values)
        if values:
            plan.answered = True
        elif plan.answered and asked and pace is Pace.FAST:
            raise DeviceLost(999)
        return values

    def refresh(self, paces: Iterable[Pace]) -> None:
        """Read these paces and the process lists, and show them in `slow`; raises DeviceLost or SessionLost."""
        for pace in paces:
            self._kept[pace] = self.read(pace)
            if pace is Pace.STATIC:
                self._mig = list(self._instances()) if self._kept[pace].get("mig_enabled") else []
        self._kept[None] = self._read_processes()
        merged: Values = {}
        for values in self._kept.values():
            merged |= values
        self.slow = merged

    def _read_processes(self) -> Values:
        # A split GPU tells its processes only to root; its instances tell their own to everybody.
        if self._mig:
            return {"mig": tuple(one.read(self._fails) for one in self._mig)}
        if not self._processes:
            return {}
        found = self._list_processes(self.handle)
        return {} if found is None else {"processes": found}

    def _ask(self, plan: _Plan, probe: Probe, call: int, values: Values) -> None:
        while True:
            try:
                answer = probe.calls[call](self._nvml, self.handle)
            except (self._nvml.NVMLError, AttributeError) as error:
                # AttributeError: an older or newer binding without the function.
                key = probe.fields[0]
                if self._fails(getattr(error, "value", 13), worked=key in plan.worked) is Verdict.LATER:
                    return
                plan.probes.remove((probe, call))
                call += 1
                if call == len(probe.calls):
                    return
                plan.probes.append((probe, call))
                continue
            plan.worked.add(probe.fields[0])
            for field, value in zip(probe.fields, answer, strict=True):
                if value is not None:
                    values[field] = value
            return

    def _ask_batch(self, plan: _Plan, values: Values) -> None:
        try:
            answers = self._nvml.nvmlDeviceGetFieldValues(self.handle, [key for _, key in plan.batch])
        except self._nvml.NVMLError as error:
            if self._fails(error.value, worked="batch" in plan.worked) is Verdict.UNSUPPORTED:
                plan.batch = []
            return
        plan.worked.add("batch")
        gone = []
        for entry, answer in zip(plan.batch, answers, strict=True):
            field = entry[0]
            if answer.nvmlReturn != 0:
                verdict = self._fails(answer.nvmlReturn, worked=field.field in plan.worked)
                if verdict is Verdict.UNSUPPORTED:
                    gone.append(entry)
                continue
            value = field_value(answer)
            if value is not None:
                plan.worked.add(field.field)
                values[field.field] = value * field.times if field.per == 1 else value / field.per
        if gone:
            plan.batch = [entry for entry in plan.batch if entry not in gone]

    def _fails(self, code: int, *, worked: bool) -> Verdict:
        verdict = judge(code, worked=worked)
        if verdict is Verdict.DEVICE_LOST:
            raise DeviceLost(code)
        if verdict is Verdict.SESSION_LOST:
            raise SessionLost(code)
        return verdict

    def _list_processes(self, handle: Any) -> tuple[ProcessMemory, ...] | None:
        try:
            found = self._nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        except self._nvml.NVMLError as error:
            verdict = self._fails(error.value, worked=self._processes_worked)
            if verdict is Verdict.UNSUPPORTED and handle is self.handle:
                self._processes = False
            return None
        self._processes_worked = True
        return tuple(ProcessMemory(one.pid, one.usedGpuMemory) for one in found)

    def _instances(self) -> Iterator[_MigInstance]:
        nvml = self._nvml
        try:
            count = nvml.nvmlDeviceGetMaxMigDeviceCount(self.handle)
        except nvml.NVMLError as error:
            self._fails(error.value, worked=False)
            return
        for index in range(count):
            try:
                handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(self.handle, index)
                yield _MigInstance(
                    nvml,
                    handle,
                    MigReading(
                        nvml.nvmlDeviceGetGpuInstanceId(handle),
                        nvml.nvmlDeviceGetComputeInstanceId(handle),
                        nvml.nvmlDeviceGetUUID(handle),
                        _profile(nvml, handle, self.identity.name),
                    ),
                    self,
                )
            except nvml.NVMLError as error:
                if error.value != nvml.NVML_ERROR_NOT_FOUND:
                    self._fails(error.value, worked=False)


class _MigInstance:
    def __init__(self, nvml: Any, handle: Any, identity: MigReading, parent: Device) -> None:
        self._nvml = nvml
        self._handle = handle
        self._identity = identity
        self._parent = parent
        self._memory: list[Call] = list(MEMORY_CALLS)

    def read(self, fails: Any) -> MigReading:
        memory: dict[str, int | None] = {}
        while self._memory:
            try:
                answer = self._memory[0](self._nvml, self._handle)
            except self._nvml.NVMLError as error:
                if fails(error.value, worked=False) is Verdict.LATER:
                    break
                del self._memory[0]
                continue
            memory = {
                key: None if v is None else int(v) for key, v in zip(MEMORY_FIELDS, answer, strict=True)
            }
            break
        one = self._identity
        return MigReading(
            one.gpu_instance,
            one.compute_instance,
            one.uuid,
            one.profile,
            processes=self._parent._list_processes(self._handle),
            **memory,
        )


def _profile(nvml: Any, handle: Any, gpu: str) -> str:
    """`1g.10gb` from `NVIDIA H100 80GB HBM3 MIG 1g.10gb`; the whole name when it reads otherwise."""
    name: str = nvml.nvmlDeviceGetName(handle)
    return name.rpartition(" MIG ")[2] or gpu
