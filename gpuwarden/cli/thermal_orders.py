# SPDX-License-Identifier: Apache-2.0
"""What an operator may order of a thermal guard, over the bus or, as root, of the guard itself."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from gpuwarden import names
from gpuwarden.cli import busctl
from gpuwarden.cli.exits import CommandError, Exit
from gpuwarden.cli.output import warn
from gpuwarden.cli.thermal_sources import ASK_SECONDS
from gpuwarden.control.requests import CLEAR_OVERRIDE, OverrideRequest
from gpuwarden.control.socket import ControlError, ControlUnreachableError, Document, ask

INTERFACE = f"{names.BUS_NAME}.Thermal"


@dataclass(frozen=True)
class Done:
    """What was ordered and taken; ``through`` is ``bus`` or ``guard``."""

    text: str
    through: str


def override(gpu_index: int, state: str, seconds: int) -> Done:
    """Cool the card as in ``state`` (``alert``, ``critical``) for so long. Raises CommandError."""
    request = OverrideRequest.model_validate({"state": state, "seconds": seconds}).model_dump()
    call = ("Override", "su", state, str(seconds))
    through = _by_bus_or_guard(gpu_index, call, request)
    return Done(f"GPU {gpu_index} is cooled as at {state} for {seconds} s", through)


def clear_override(gpu_index: int) -> Done:
    """End a running override. Raises CommandError."""
    through = _by_bus_or_guard(gpu_index, ("ClearOverride",), {"request": CLEAR_OVERRIDE})
    return Done(f"GPU {gpu_index} is under no override", through)


def release(gpu_index: int, seconds: int) -> Done:
    """Have the thermal guard let go of the card for so long. Raises CommandError.

    Over the bus alone: only the supervisor knows whether workers run on the card.
    """
    _by_bus(gpu_index, ("Release", "u", str(seconds)))
    return Done(f"GPU {gpu_index} is released for {seconds} s: nothing cools it meanwhile", "bus")


def _by_bus_or_guard(gpu_index: int, call: tuple[str, ...], request: Document) -> str:
    try:
        _by_bus(gpu_index, call)
    except CommandError as error:
        if error.code is not Exit.UNREACHABLE or os.geteuid() != 0:
            raise
        warn(f"{error}; asking the thermal guard itself")
        _translating(gpu_index, lambda: _by_guard(gpu_index, request))
        return "guard"
    return "bus"


def _by_bus(gpu_index: int, call: tuple[str, ...]) -> None:
    method, *arguments = call
    busctl.call(
        names.gpu_object(gpu_index),
        INTERFACE,
        method,
        *arguments,
        timeout_seconds=busctl.ORDER_TIMEOUT_SECONDS,
        denied=f"{names.BUS_NAME} denies it: root, or members of the group "
        f"{names.OPERATORS_GROUP} whom polkit lets (org.gpuwarden1.thermal-override)",
    )


def _by_guard(gpu_index: int, request: Document) -> None:
    ask(names.thermal_control_socket(gpu_index), request, ASK_SECONDS)


def _translating(gpu_index: int, order: Callable[[], None]) -> None:
    try:
        order()
    except ControlUnreachableError as error:
        message = f"{names.thermal_unit(gpu_index)} does not answer: {error}"
        raise CommandError(message, Exit.UNREACHABLE) from error
    except ControlError as error:
        raise CommandError(f"not done: {error}", Exit.WRONG) from error
