# SPDX-License-Identifier: Apache-2.0
"""The raw calls: pynvml's functions with our errors. Only this module imports pynvml."""

import ctypes
from collections.abc import Sequence
from typing import Any

import pynvml

from gpuwarden.nvml.errors import DriverMissingError, translate
from gpuwarden.nvml.vocabulary import Field

Handle = Any  # pynvml's pointer to a device: opaque, dies with its session


DIE_SENSOR = 0  # NVML_TEMPERATURE_GPU; id 1 is not the memory
# NVML_INIT_FLAG_NO_GPUS: a node without cards is no error. Not NO_ATTACH (2), which would spare us
# a wedged neighbour: on an H200 (driver 580.159) no call finds any card then. The unit's device
# list keeps the neighbours away instead.
NO_GPUS = 1
_INVALID_ARGUMENT = 2
_NOT_SUPPORTED = 3
_FUNCTION_NOT_FOUND = 13
# A driver that doesn't know a field calls it unsupported or invalid.
_NO_SUCH_FIELD = frozenset({_INVALID_ARGUMENT, _NOT_SUPPORTED, _FUNCTION_NOT_FOUND})

# nvmlValueType_t to the member of the union that holds the value.
_VALUE_MEMBERS = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")


def load(path: str) -> None:
    """Bind pynvml to the library at ``path``.

    :raises DriverMissingError: the library can't be loaded.
    """
    try:
        pynvml.nvmlLib = ctypes.CDLL(path)
    except OSError as error:
        raise DriverMissingError(
            f"no NVIDIA driver: its library can't be loaded ({error})",
            "NVML",
            "install the NVIDIA driver's user space (libnvidia-ml1)",
        ) from error


def initialise() -> None:
    """Start NVML, with cards or without any."""
    try:
        pynvml.nvmlInitWithFlags(NO_GPUS)
    except pynvml.NVMLError as error:
        if error.value not in (_INVALID_ARGUMENT, _FUNCTION_NOT_FOUND):
            raise translate(error.value, "NVML start") from None
        call("NVML start", "nvmlInit")


def call(where: str, function: str, *arguments: object) -> Any:
    """Call pynvml's ``function``.

    :raises NvmlError: any code but success, as its family.
    """
    try:
        return getattr(pynvml, function)(*arguments)
    except pynvml.NVMLError as error:
        raise translate(error.value, f"{where}: {function}") from None


def field_values(
    where: str, handle: Handle, fields: Sequence[Field]
) -> tuple[dict[Field, float | int], set[Field]]:
    """The values of ``fields``, and those of them that this card or driver doesn't have.

    A field that fails in another way is in neither.

    :raises NvmlError: the call as a whole failed.
    """
    answers = call(where, "nvmlDeviceGetFieldValues", handle, [int(field) for field in fields])
    values: dict[Field, float | int] = {}
    missing: set[Field] = set()
    for field, answer in zip(fields, answers, strict=True):
        if answer.nvmlReturn in _NO_SUCH_FIELD:
            missing.add(field)
        elif answer.nvmlReturn == 0 and answer.valueType < len(_VALUE_MEMBERS):
            values[field] = getattr(answer.value, _VALUE_MEMBERS[answer.valueType])
    return values, missing
