# SPDX-License-Identifier: Apache-2.0
"""A driver library at the ctypes border, for what the simulator has not: old drivers, odd answers.

pynvml looks its functions up as attributes of the loaded library: one that isn't here is one that
the driver lacks. Answers are plain values, or an NVML code to fail with.
"""

import ctypes
from collections.abc import Callable
from typing import Any, Final

import pynvml
import pytest

from gpuwarden.nvml import calls

OK: Final = 0
NOT_SUPPORTED: Final = 3
LOST: Final = 15
UNKNOWN: Final = 999


class Fails:
    """An NVML code instead of an answer."""

    def __init__(self, code: int) -> None:
        self.code = code


class StandInDriver:
    """One card: ``answers`` by function, ``fields`` by id; ``calls`` is what was asked for."""

    def __init__(self, answers: dict[str, Any], fields: dict[int, Any] | None = None) -> None:
        self.answers = answers
        self.fields = fields
        self.calls: list[str] = []

    def __getattr__(self, function: str) -> Callable[..., int]:
        known = self.__dict__["answers"]
        if function == "nvmlDeviceGetFieldValues" and self.__dict__["fields"] is not None:
            return self._field_values
        if function not in known:
            raise AttributeError(function)

        def answer(*arguments: Any) -> int:
            self.calls.append(function)
            return _fill(self.answers[function], arguments)

        return answer

    def _field_values(self, handle: object, count: Any, values: Any) -> int:
        self.calls.append("nvmlDeviceGetFieldValues")
        assert self.fields is not None
        for entry in values._obj:
            found = self.fields.get(entry.fieldId, Fails(NOT_SUPPORTED))
            if isinstance(found, Fails):
                entry.nvmlReturn = found.code
            elif found < 0:
                entry.nvmlReturn, entry.valueType, entry.value.siVal = OK, 5, found
            else:
                entry.nvmlReturn, entry.valueType, entry.value.uiVal = OK, 1, found
        return OK


def attach(driver: StandInDriver, monkeypatch: pytest.MonkeyPatch) -> StandInDriver:
    """Have pynvml talk to ``driver``, whatever library is asked for."""
    monkeypatch.setattr(calls, "load", lambda path: None)
    monkeypatch.setattr(pynvml, "nvmlLib", driver)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    return driver


def _fill(answer: Any, arguments: tuple[Any, ...]) -> int:
    if isinstance(answer, Fails):
        return answer.code
    if callable(answer):
        answer = answer(*arguments)
        if isinstance(answer, Fails):
            return answer.code
    outputs = [a for a in arguments if hasattr(a, "_obj") or isinstance(a, ctypes.Array)]
    values = answer if isinstance(answer, tuple) else (answer,)
    if answer is not None:
        for output, value in zip(outputs[-len(values) :], values, strict=True):
            _store(output, value)
    return OK


def _store(output: Any, value: Any) -> None:
    if isinstance(output, ctypes.Array):
        output.value = value.encode()
    elif isinstance(value, dict):
        for name, part in value.items():
            setattr(output._obj, name, part)
    else:
        output._obj.value = value
