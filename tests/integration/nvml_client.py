# SPDX-License-Identifier: Apache-2.0
"""Run in a process of its own: NVML calls through pynvml against the simulated library.

Reads one JSON list of [function, argument, ...] a line; a string "gpu:N" or "uuid:..." among the
arguments is a handle. Answers one JSON list of results a line; an error is {"error": "Name"}.
"""

import ctypes
import json
import os
import sys
import time
from typing import Any

import pynvml

HANDLES: dict[str, Any] = {}
STRUCTURES = (ctypes.Structure, ctypes.Array)


def handle(name: str) -> Any:
    if name not in HANDLES:
        kind, _, value = name.partition(":")
        if kind == "gpu":
            HANDLES[name] = pynvml.nvmlDeviceGetHandleByIndex(int(value))
        else:
            HANDLES[name] = pynvml.nvmlDeviceGetHandleByUUID(value)
    return HANDLES[name]


def plain(value: Any) -> Any:
    """A result as JSON can carry it."""
    if isinstance(value, bytes):
        return value.decode()
    if hasattr(value, "_fields_"):
        return {name: plain(getattr(value, name)) for name, *_ in value._fields_}
    if isinstance(value, (list, tuple, ctypes.Array)):
        return [plain(each) for each in value]
    if isinstance(value, (int, float, str, type(None), dict)):
        return value
    return {name: plain(each) for name, each in vars(value).items()}


def fields(device: Any, *numbers: int) -> list[dict[str, Any]]:
    return [
        {
            "return": value.nvmlReturn,
            "type": value.valueType,
            "unsigned": value.value.uiVal,
            "signed": value.value.siVal,
            "long": value.value.ullVal,
        }
        for value in pynvml.nvmlDeviceGetFieldValues(device, list(numbers))
    ]


def wait_for_event(device: Any, types: int, timeout_ms: int) -> Any:
    """Register, say so, wait."""
    events = pynvml.nvmlEventSetCreate()
    try:
        pynvml.nvmlDeviceRegisterEvents(device, types, events)
        print(json.dumps("registered"), flush=True)
        data = pynvml.nvmlEventSetWait_v2(events, timeout_ms)
        return {"type": data.eventType, "data": data.eventData, "instance": data.gpuInstanceId}
    finally:
        pynvml.nvmlEventSetFree(events)


def temperature_with_version(device: Any, version: int) -> int:
    value = pynvml.c_nvmlTemperature_v1_t()
    value.version = version
    function = pynvml._nvmlGetFunctionPointer("nvmlDeviceGetTemperatureV")
    return int(function(device, ctypes.byref(value)))


def memory_with_version(device: Any, version: int) -> int:
    value = pynvml.c_nvmlMemory_v2_t()
    value.version = version
    function = pynvml._nvmlGetFunctionPointer("nvmlDeviceGetMemoryInfo_v2")
    return int(function(device, ctypes.byref(value)))


def limit_with_version(device: Any, version: int, scope: int, milliwatts: int) -> int:
    value = pynvml.c_nvmlPowerValue_v2_t(version, scope, milliwatts)
    function = pynvml._nvmlGetFunctionPointer("nvmlDeviceSetPowerManagementLimit_v2")
    return int(function(device, ctypes.byref(value)))


def hammer(device: Any, distinct: int, seconds: float) -> list[list[int]]:
    """So many different samples of values that belong together, each from a single call."""
    seen: list[list[int]] = []
    deadline = time.monotonic() + seconds
    while len(seen) < distinct and time.monotonic() < deadline:
        values = pynvml.nvmlDeviceGetFieldValues(device, [185, 186, 83, 82])
        sample = [value.value.ullVal for value in values]
        if not seen or seen[-1] != sample:
            seen.append(sample)
    return seen


def forget(*_: Any) -> None:
    HANDLES.clear()


OWN = {
    function.__name__: function
    for function in (
        fields,
        wait_for_event,
        temperature_with_version,
        memory_with_version,
        limit_with_version,
        hammer,
        forget,
    )
}


def call(name: str, *arguments: Any) -> Any:
    try:
        prepared = [
            handle(each) if isinstance(each, str) and each.startswith(("gpu:", "uuid:")) else each
            for each in arguments
        ]
        return plain((OWN.get(name) or getattr(pynvml, name))(*prepared))
    except pynvml.NVMLError as error:
        return {"error": type(error).__name__.removeprefix("NVMLError_") or str(error)}


def main() -> None:
    pynvml.nvmlLib = ctypes.CDLL(os.environ["SIMULATED_LIBRARY"])
    for line in sys.stdin:
        print(json.dumps(call(*json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
