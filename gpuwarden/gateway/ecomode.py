# SPDX-License-Identifier: Apache-2.0
"""Eco by order of a program on the node (``/api/thermal_mode``): one request at a time.

It comes on top of what the thermal guards say and never against it. It is a lease: it ends by
itself, so that a program that died can't leave the node slow. A file remembers it for the next
process, which goes on with what is left of it.
"""

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from gpuwarden.control.snapshot import boot_id, boottime_nanoseconds, write_atomically
from gpuwarden.gateway.ecolease import LEASE_SECONDS, EcoLease
from gpuwarden.gateway.errors import ApiError
from gpuwarden.gateway.heat import cooler
from gpuwarden.gateway.work import ECO, CardLimits
from gpuwarden.systemd.events import Event, tell

log = logging.getLogger(__name__)

LEASE_FILE = "eco.json"  # beside the snapshot
ORDERS = 10  # within ORDERS_SECONDS: who regulates by this does it wrong
ORDERS_SECONDS = 60.0

OnLimits = Callable[[int, CardLimits], None]


class EcoMode:
    """Passes the cards' limits on, cooler while eco lasts.

    :param file: where the lease is kept for the next process.
    """

    def __init__(
        self, on_limits: OnLimits, file: Path, lease_seconds: float = LEASE_SECONDS
    ) -> None:
        self._on_limits = on_limits
        self._file = file
        self._lease_seconds = lease_seconds
        self._said: dict[int, CardLimits] = {}
        self._until: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._orders: deque[float] = deque()
        self._is_refusing = False
        self._go_on()

    @property
    def seconds_left(self) -> float | None:
        """How long eco lasts; None without."""
        return None if self._until is None else max(0.0, self._until - self._now())

    @property
    def limited_by_heat(self) -> bool:
        """Whether a thermal guard limits any card, whatever was ordered here."""
        return any(limits != CardLimits() for limits in self._said.values())

    def limit(self, card: int, limits: CardLimits) -> None:
        """What a card's thermal guard says."""
        self._said[card] = limits
        self._on_limits(card, self._held(limits))

    def order(self, mode: str) -> None:
        """Begin, extend or end eco. Raises ApiError 429."""
        self._count_order()
        if mode == "eco":
            self._begin()
        else:
            self._end("ordered over HTTP")

    def close(self) -> None:
        """Leave the lease to the next process."""
        if self._timer is not None:
            self._timer.cancel()

    def _begin(self) -> None:
        begins = self._until is None
        self._hold(self._lease_seconds)
        self._remember()
        if begins:
            text = f"eco for {self._lease_seconds:g} s: one request at a time on every card"
            tell(Event.ECO_MODE, f"{text}; ordered over HTTP", STATE_NEW="eco")
            self._tell_all()

    def _hold(self, seconds: float) -> None:
        self.close()
        loop = asyncio.get_running_loop()
        self._until = loop.time() + seconds
        self._timer = loop.call_at(self._until, self._end, "its time is over")

    def _end(self, reason: str) -> None:
        self.close()
        if self._until is None:
            return
        self._until = None
        self._forget()
        tell(Event.ECO_MODE, f"eco has ended: {reason}", STATE_NEW="normal", REASON=reason)
        self._tell_all()

    def _remember(self) -> None:
        until = boottime_nanoseconds() + int(self._lease_seconds * 1e9)
        lease = EcoLease(boot_id=boot_id(), until_boottime_nanoseconds=until)
        try:
            write_atomically(self._file, lease.model_dump_json().encode(), mode=0o600)
        except OSError as error:
            text = "eco ends with this process: %s can't be written: %s"
            log.warning(text, self._file, error.strerror)

    def _forget(self) -> None:
        try:
            self._file.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s can't be removed: %s", self._file, error.strerror)

    def _go_on(self) -> None:
        """With the lease that a former process was told; what makes no sense counts as none."""
        try:
            lease = EcoLease.model_validate_json(self._file.read_bytes())
        except FileNotFoundError:
            return
        except (OSError, ValidationError) as error:
            log.warning("%s can't be read, eco is not on: %s", self._file, type(error).__name__)
            return
        left_seconds = lease.left_seconds(boot_id(), boottime_nanoseconds())
        if left_seconds:
            self._hold(left_seconds)
            text = f"eco goes on for {left_seconds:.0f} s: it was ordered over HTTP before"
            tell(Event.ECO_MODE, text, STATE_NEW="eco")

    def _tell_all(self) -> None:
        for card, limits in self._said.items():
            self._on_limits(card, self._held(limits))

    def _held(self, limits: CardLimits) -> CardLimits:
        return limits if self._until is None else cooler(limits, ECO)

    def _count_order(self) -> None:
        now = self._now()
        while self._orders and self._orders[0] <= now - ORDERS_SECONDS:
            self._orders.popleft()
        if len(self._orders) >= ORDERS:
            wait = math.ceil(self._orders[0] + ORDERS_SECONDS - now)
            text = f"{ORDERS} orders in {ORDERS_SECONDS:g} s are enough"
            if not self._is_refusing:  # who asks in a loop must not fill the journal
                tell(Event.ECO_MODE, f"orders over HTTP are refused: {text}", logging.WARNING)
            self._is_refusing = True
            raise ApiError("rate_limited", text, retry_after_seconds=max(1, wait))
        self._is_refusing = False
        self._orders.append(now)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
