# SPDX-License-Identifier: Apache-2.0
"""Asks the cards' thermal guards, on behalf of whoever called on the bus."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from gpuwarden import names
from gpuwarden.bus.errors import (
    BusError,
    Busy,
    Failed,
    InvalidArgument,
    NoSuchGpu,
    Unavailable,
)
from gpuwarden.control.requests import (
    CLEAR_OVERRIDE,
    RELOAD,
    HistoryAnswer,
    HistoryRequest,
    HistoryRow,
    OverrideRequest,
    ReleaseRequest,
    Request,
)
from gpuwarden.control.socket import ControlError, ControlUnreachableError, ask_async
from gpuwarden.guard.published import units_that_hold

# A thermal guard answers from memory, whatever its driver does; busctl waits for 25 s.
ASK_SECONDS = 5.0
# Closing the card's NVML session is a call of the driver.
RELEASE_SECONDS = 15.0
# For the card's services to let go of it, in which time a healthy driver has closed it long ago.
LET_GO_SECONDS = 8.0
LOOK_AGAIN_SECONDS = 0.1

OVERRIDES = ("alert", "critical")
LONGEST_SECONDS = 86_400  # design.md, Override and Release: a day
HISTORY_SECONDS = 3600  # design.md: an hour is kept
HISTORY_PAGES = 60  # an hour comes in 9; more is a guard that goes round in circles
HISTORY_READERS = 4  # at a time and card, so that readers can't fill the guard's control socket

KINDS: dict[str, type[BusError]] = {
    "InvalidArgument": InvalidArgument,
    "Busy": Busy,
    "Unavailable": Unavailable,
}


class Node(Protocol):
    """What is to be known of the node before a card is released."""

    def cards(self) -> list[int]:
        """The indices of all cards."""

    def occupants(self, gpu_index: int) -> list[int]:
        """The workers that have the card open, or are being started on it."""

    def releasing(self, gpu_index: int) -> AbstractContextManager[None]:
        """While it lasts, and until the release is seen, no worker of the card is started."""


class ThermalGuards:
    """The methods of org.gpuwarden1.Thermal, and reloading.

    :param socket_of: where the thermal guard of a card is asked.
    :param holding: the units that still have a released card open.
    """

    def __init__(
        self,
        node: Node,
        socket_of: Callable[[int], Path] = names.thermal_control_socket,
        holding: Callable[[int], list[str]] = units_that_hold,
        let_go_seconds: float = LET_GO_SECONDS,
    ) -> None:
        self._node = node
        self._socket_of = socket_of
        self._holding = holding
        self._let_go_seconds = let_go_seconds
        self._readers: dict[int, int] = {}

    async def override(self, gpu_index: int, state: str, seconds: int) -> None:
        """Have a card cooled as in ``state`` at least. Raises BusError."""
        if state not in OVERRIDES:
            # Towards hotter there is nothing: no state but these can be forced.
            raise InvalidArgument(f"a card can be forced to {' or '.join(OVERRIDES)}, nothing else")
        _check_seconds(seconds, LONGEST_SECONDS)
        # The model checks the state again, at run time: mypy can't follow it through OVERRIDES.
        request = OverrideRequest.model_validate({"state": state, "seconds": seconds})
        await self._ask(gpu_index, request, ASK_SECONDS)

    async def clear_override(self, gpu_index: int) -> None:
        """End an override or a release. Raises BusError."""
        await self._ask(gpu_index, Request(request=CLEAR_OVERRIDE), ASK_SECONDS)

    async def release(self, gpu_index: int, seconds: int) -> None:
        """Have a card let go of, if no worker runs on it. Raises BusError.

        The thermal guard keeps the order, the scan follows it; the card is released when both have
        closed it. If one of them doesn't, the order is taken back.
        """
        _check_seconds(seconds, LONGEST_SECONDS)
        with self._node.releasing(gpu_index):
            numbers = self._node.occupants(gpu_index)
            if numbers:
                listed = " ".join(f"medgemma-worker@{number}" for number in numbers)
                raise Busy(f"GPU {gpu_index} is in use: first systemctl stop {listed}")
            await self._ask(gpu_index, ReleaseRequest(seconds=seconds), RELEASE_SECONDS)
            await self._closed(gpu_index)

    async def _closed(self, gpu_index: int) -> None:
        deadline = time.monotonic() + self._let_go_seconds
        while units := self._holding(gpu_index):
            if time.monotonic() >= deadline:
                await self.clear_override(gpu_index)
                raise Failed(
                    f"GPU {gpu_index} is not released: {' and '.join(units)} did not close it "
                    f"within {self._let_go_seconds:g} s (journalctl -k tells of its driver)"
                )
            await asyncio.sleep(LOOK_AGAIN_SECONDS)

    async def history(self, gpu_index: int, seconds: int) -> list[HistoryRow]:
        """The last ``seconds`` of a card, oldest first. Raises BusError."""
        _check_seconds(seconds, HISTORY_SECONDS)
        readers = self._readers.get(gpu_index, 0)
        if readers >= HISTORY_READERS:
            raise Busy(f"{readers} callers are reading the history of GPU {gpu_index}; try again")
        self._readers[gpu_index] = readers + 1
        try:
            now_microseconds = time.time_ns() // 1000  # the clock that the rows are dated by
            return await self._read_history(gpu_index, now_microseconds - seconds * 1_000_000)
        finally:
            self._readers[gpu_index] -= 1

    async def reload(self, gpu_index: int) -> None:
        """Have a thermal guard take the accepted configuration; ControlError says why it didn't."""
        request = Request(request=RELOAD)
        await ask_async(self._socket_of(gpu_index), request.model_dump(), RELEASE_SECONDS)

    async def _read_history(self, gpu_index: int, after_microseconds: int) -> list[HistoryRow]:
        rows: list[HistoryRow] = []
        for _ in range(HISTORY_PAGES):
            request = HistoryRequest(after_unix_microseconds=after_microseconds)
            document = await self._ask(gpu_index, request, ASK_SECONDS)
            try:
                answer = HistoryAnswer.model_validate(document)
            except ValidationError as error:
                raise Failed(
                    f"the answer of {names.thermal_unit(gpu_index)} is of another version; after "
                    f"an upgrade: systemctl restart {names.thermal_unit(gpu_index)}"
                ) from error
            rows += answer.rows
            if not answer.more:
                return rows
            if not answer.rows:
                break
            after_microseconds = answer.rows[-1].unix_microseconds
        raise Failed(f"the history of GPU {gpu_index} has no end")

    async def _ask(self, gpu_index: int, request: Request, seconds: float) -> dict[str, Any]:
        """One exchange; the errors of the socket become those of the bus."""
        if gpu_index not in self._node.cards():  # it may have left while polkit was asked
            raise NoSuchGpu(f"there is no GPU {gpu_index}")
        try:
            return await ask_async(self._socket_of(gpu_index), request.model_dump(), seconds)
        except ControlUnreachableError as error:
            unit = names.thermal_unit(gpu_index)
            raise Unavailable(f"{error} (systemctl status {unit})") from error
        except ControlError as error:
            raise KINDS.get(error.kind, Failed)(str(error)) from error


def _check_seconds(seconds: int, longest: int) -> None:
    if not 1 <= seconds <= longest:
        raise InvalidArgument(f"{seconds} seconds: 1 to {longest} are allowed")
