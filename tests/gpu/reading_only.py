# SPDX-License-Identifier: Apache-2.0
"""Makes this process unable to change a card: only what reads can be called from then on."""

import inspect
import re
from collections.abc import Callable
from typing import Any, NoReturn

import pynvml

# The driver's entry points that look and don't touch; a set of events is the caller's own.
READS = re.compile(
    r"nvml(?:Init(?:_v2|WithFlags)?|Shutdown|ErrorString|(?:Device|System)Get[A-Z]\w*"
    r"|EventSet(?:Create|Wait|Wait_v2|Free)|DeviceRegisterEvents)"
)
SETS = re.compile(r"Set[A-Z]|Reset|Clear")


class SetterCalledError(BaseException):
    """Something tried to change the card. Nothing that catches exceptions catches this."""


def forbid_setters() -> None:
    """From now on every call of the driver that isn't known to read ends the program.

    Twice: by the names of pynvml's functions, and where pynvml looks up the driver's own.
    """
    for name, _ in inspect.getmembers(pynvml, inspect.isfunction):
        if SETS.search(name) and not READS.fullmatch(name):
            setattr(pynvml, name, _refusal(name))
    look_up = pynvml._nvmlGetFunctionPointer
    if getattr(look_up, "reads_only", False):
        return
    pynvml._nvmlGetFunctionPointer_cache.clear()

    def look_up_reader(name: str) -> Any:
        if not READS.fullmatch(name):
            raise SetterCalledError(name)
        return look_up(name)

    look_up_reader.reads_only = True  # type: ignore[attr-defined]
    pynvml._nvmlGetFunctionPointer = look_up_reader


def deny_setters() -> None:
    """As :func:`forbid_setters`, but what would set answers what it does without the right to.

    For the whole guard, which proves at its start that it may set a power limit.
    """
    forbid_setters()
    for name, _ in inspect.getmembers(pynvml, inspect.isfunction):
        if SETS.search(name) and not READS.fullmatch(name):
            setattr(pynvml, name, _denied)


def _denied(*_: object, **__: object) -> NoReturn:
    raise pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION)


def _refusal(name: str) -> Callable[..., NoReturn]:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise SetterCalledError(name)

    return refuse
