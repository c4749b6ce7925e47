# SPDX-License-Identifier: Apache-2.0
"""Stops a worker so that nothing is lost and nothing is left, and says what was seen."""

import asyncio
import logging
import signal
import time

from gpuwarden.bus.errors import BusError
from gpuwarden.control.socket import ControlError
from gpuwarden.control.states import WorkerStatus
from gpuwarden.guard import aftermath
from gpuwarden.guard.drains import Drains
from gpuwarden.guard.lives import BY_GUARD, Lives, tell_remains
from gpuwarden.guard.operation import Operation
from gpuwarden.guard.remains import Life, Remains
from gpuwarden.guard.workers import BUS_RETRY_SECONDS, JOB_TIMEOUT_SECONDS
from gpuwarden.systemd.events import Event, tell
from gpuwarden.systemd.units import Systemd

log = logging.getLogger(__name__)

# The articles' grace, from SIGTERM to SIGKILL, for a worker whose time to finish is over.
GRACE_SECONDS = 5.0
STOP_TRIES = 10


class Stopping:
    """Drain by the gateway, SIGTERM by systemd, five seconds, SIGKILL to the whole group, a look.

    Where the gateway can't be asked, the worker drains by itself, in the time that systemd's unit
    allows for it.
    """

    def __init__(self, systemd: Systemd, lives: Lives, drains: Drains) -> None:
        self._systemd = systemd
        self._lives = lives
        self._drains = drains

    async def stop(self, worker: WorkerStatus, operation: Operation, drain_seconds: float) -> None:
        """Return when it is down and what could be seen of its remains has been told.

        :raises JobError: systemd could not stop it.
        :raises BusError: systemd could not be asked.
        """
        began = time.monotonic()
        drained = await self._drain(worker.number, drain_seconds)
        life = self._lives.life(worker.number, worker.gpu)
        self._lives.expect(worker.number, BY_GUARD)
        await self._end(worker, is_drained=drained)
        if not life.main_pid:
            return  # it was down already: nothing has ended
        remains = await self._look_after(life)
        how = "stopped" + (f" ({operation.reason})" if operation.reason else "")
        self._lives.ended(worker.number, how, remains)
        tell_remains(remains, f"worker {worker.number} {how} in {time.monotonic() - began:.1f} s")

    async def _drain(self, number: int, seconds: float) -> bool:
        """Whether the worker's time to finish is over already."""
        try:
            left = await self._drains.drain(number, seconds)
        except ControlError as error:
            log.warning("worker %d drains by itself, the gateway can't be asked: %s", number, error)
            return False
        if left:
            log.warning("worker %d has %d requests left after %g s", number, left, seconds)
        return True

    async def _end(self, worker: WorkerStatus, *, is_drained: bool) -> None:
        job = asyncio.ensure_future(self._stop_unit(worker.unit))
        try:
            if is_drained:
                done, _ = await asyncio.wait({job}, timeout=GRACE_SECONDS)
                if not done:
                    await self._kill(worker)
            await job
        finally:
            job.cancel()
        # It did as it was told, however hard it had to be told: no failure to be tried again.
        await self._systemd.reset_failed(worker.unit)

    async def _stop_unit(self, unit: str) -> None:
        """Have systemd stop it; one that is busy, or a bus that is away, is asked again."""
        for tries_left in reversed(range(STOP_TRIES)):
            try:
                await self._systemd.stop(unit, JOB_TIMEOUT_SECONDS)
            except BusError as error:
                if not tries_left:
                    raise
                log.warning("%s is not stopped yet: %s", unit, error)
                await asyncio.sleep(BUS_RETRY_SECONDS)
            else:
                return

    async def _kill(self, worker: WorkerStatus) -> None:
        tell(
            Event.WORKER_KILLED,
            f"worker {worker.number} has not ended {GRACE_SECONDS:.0f} s after SIGTERM: its "
            "processes are killed",
            logging.WARNING,
            WORKER=worker.number,
            GPU=worker.gpu,
        )
        await self._systemd.kill(worker.unit, signal.SIGKILL)

    async def _look_after(self, life: Life) -> Remains:
        remains = await aftermath.look_after(life, self._lives.is_down)
        if not remains.left:
            return remains
        aftermath.kill(remains.left)  # not in its group any more, or systemd would have had them
        return await aftermath.look_after(life, self._lives.is_down)
