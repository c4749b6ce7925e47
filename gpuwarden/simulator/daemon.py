# SPDX-License-Identifier: Apache-2.0
"""The simulator's daemon: steps the physics, serves both sockets, publishes the state file."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from gpuwarden.simulator import places
from gpuwarden.simulator.attach import LINE_LIMIT_BYTES, AttachServer
from gpuwarden.simulator.configuration import CardsFile
from gpuwarden.simulator.control import ControlServer
from gpuwarden.simulator.frozen import FrozenFile
from gpuwarden.simulator.machine import Machine
from gpuwarden.simulator.state_file import StateFile
from gpuwarden.systemd.notify import Notifier

IDLE_PERIOD_SECONDS = 0.5  # nothing moves: often enough to keep the samples' dates fresh
LONGEST_GAP_SECONDS = 60.0  # a machine that was paused for longer did not cool down meanwhile
STATUS_PERIOD_SECONDS = 5.0

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Daemon:
    """All cards of the node on one clock."""

    def __init__(self, cards: CardsFile, directory: Path, hertz: float, notifier: Notifier) -> None:
        self._file = StateFile(directory / places.STATE_NAME)
        self._frozen = FrozenFile(directory / places.FROZEN_NAME)
        self._cards = cards
        self._directory = directory
        self._period_seconds = 1.0 / hertz
        self._notifier = notifier
        self._last = time.monotonic()
        self._status_due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._machines: list[Machine] = []
        self._attach: AttachServer | None = None

    async def run(self) -> None:
        """Simulate until SIGTERM or SIGINT.

        :raises OSError: the run directory or a socket can't be made.
        """
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        self._file.open(self._cards.cards)
        if not self._file.adopted:
            await self._frozen.tear_down()  # left by a daemon of other cards
        self._machines = [
            Machine(index, entry, self._file) for index, entry in enumerate(self._cards.cards)
        ]
        for machine in self._machines:
            places.device_file(self._directory, machine.uuid).touch(mode=0o644)
        self._attach = AttachServer(self._machines, self.step_now)
        control = ControlServer(self._machines, self._file, self._frozen, self.step_now)
        servers = [
            await listen(self._directory / places.ATTACH_SOCKET_NAME, 0o666, self._attach.serve),
            await listen(self._directory / places.CONTROL_SOCKET_NAME, 0o600, control.serve),
        ]
        self.step_now()
        self._notifier.ready()
        await stop.wait()
        self._notifier.stopping()
        await self._stop(servers)

    def step_now(self) -> None:
        """Bring every card up to this moment: whoever changed something sees it done."""
        now = time.monotonic()
        seconds = min(now - self._last, LONGEST_GAP_SECONDS)
        self._last = now
        for machine in self._machines:
            machine.step(seconds)
        if self._attach is not None:
            self._attach.drop_lost()
        self._schedule()
        self._tell()

    def _schedule(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        settled = all(machine.is_settled() for machine in self._machines)
        pause = max(IDLE_PERIOD_SECONDS, self._period_seconds) if settled else self._period_seconds
        self._timer = asyncio.get_running_loop().call_later(pause, self.step_now)

    def _tell(self) -> None:
        """Now and then: also while requests come so fast that the timer never gets its turn."""
        if self._last >= self._status_due:
            self._status_due = self._last + STATUS_PERIOD_SECONDS
            self._notifier.watchdog()
            self._notifier.status(self.describe())

    def describe(self) -> str:
        """One line about all cards."""
        return "simulating " + ", ".join(
            f"{machine.index}: {machine.entry.preset} {machine.plant.die_celsius:.0f} C "
            f"{machine.plant.watts:.0f} W" + ("" if not machine.faults else " FAULTY")
            for machine in self._machines
        )

    async def _stop(self, servers: list[asyncio.Server]) -> None:
        """A clean stop is a driver that was unloaded: settings and contexts are gone."""
        if self._timer is not None:
            self._timer.cancel()
        for server in servers:
            server.close()
        if self._attach is not None:
            self._attach.close()
        self._file.state.driver_loaded = 0
        for machine in self._machines:
            machine.card.control.faults = 0
        await self._frozen.tear_down()
        for name in (places.ATTACH_SOCKET_NAME, places.CONTROL_SOCKET_NAME):
            (self._directory / name).unlink(missing_ok=True)
        self._file.close(driver_gone=True)


async def listen(path: Path, mode: int, handler: Handler) -> asyncio.Server:
    """Serve on a socket file with these permission bits."""
    return await asyncio.start_unix_server(
        handler, sock=bound_socket(path, mode), limit=LINE_LIMIT_BYTES
    )


def bound_socket(path: Path, mode: int) -> socket.socket:
    """A socket file that is never open wider than ``mode``, not even for a moment."""
    path.unlink(missing_ok=True)
    endpoint = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    mask = os.umask(0o777 & ~mode)
    try:
        endpoint.bind(str(path))
    finally:
        os.umask(mask)
    return endpoint
