"""medgemma-thermal@N: samples card N, publishes what it sees. One process a card, no D-Bus.

The loop never calls the driver: a thread does, and may be lost there. The watchdog is fed only
while calls come back.
"""

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gpuwarden import names
from gpuwarden.config import Configuration, ConfigurationError, effective_configuration
from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.nvml.library import choose_library
from gpuwarden.systemd.journal import set_up_logging
from gpuwarden.systemd.notify import Notifier
from gpuwarden.thermal.driver import DriverThread
from gpuwarden.thermal.observation import NotSeen, Observation, Trouble
from gpuwarden.thermal.sampler import Sampler
from gpuwarden.thermal.thresholds import Thresholds
from gpuwarden.thermal.view import (
    BLIND_AFTER_SECONDS,
    View,
    age,
    status_line,
    take,
    thermal_data,
)

log = logging.getLogger(__name__)

PUBLISH_EVERY_SECONDS = 1.0
LOOK_AGAIN_SECONDS = 10.0  # design: a lost card or a missing driver is looked for that often
LOOK_FOR_PLAN_SECONDS = 1.0  # reading a file costs nothing


@dataclass(frozen=True)
class Places:
    """Where everything lies; the defaults are the contract's."""

    load: Callable[[], Configuration] = effective_configuration
    plan_file: Path = names.PLAN_FILE
    snapshot_file: Callable[[int], Path] = names.thermal_snapshot_file


def main(argv: list[str], places: Places | None = None) -> int:
    """Guard the card whose index is ``argv[0]``, until SIGTERM."""
    places = places or Places()
    set_up_logging("info")
    if len(argv) != 1 or not (argv[0].isascii() and argv[0].isdigit()):
        log.error("thermal takes one argument, the card's index; found %r", " ".join(argv))
        return 2
    configuration, note = _configuration(places)
    logging.getLogger().setLevel(configuration.log.level.upper())
    index = int(argv[0])
    library = choose_library()
    if library.note:
        log.warning("%s", library.note)
    if library.simulated:
        log.warning("SIMULATED: GPU %d is the simulator's", index)
    guard = ThermalGuard(
        index,
        Sampler(index, places.plan_file, library).attempt,
        places.snapshot_file(index),
        period_seconds=1 / configuration.thermal.sample_hertz,
        note=note,
        simulated=library.simulated,
    )
    asyncio.run(_until_terminated(guard, Notifier()))
    return 0


class ThermalGuard:
    """Watches one card.

    :param attempt: looks at the card once; runs in the driver's thread.
    :param note: what is to be said with every state, such as a refused configuration.
    """

    def __init__(
        self,
        gpu_index: int,
        attempt: Callable[[], Observation],
        snapshot_file: Path,
        *,
        period_seconds: float,
        note: str = "",
        simulated: bool = False,
        notifier: Notifier | None = None,
    ) -> None:
        self._attempt = attempt
        self._period_seconds = period_seconds
        self._note = note
        self._simulated = simulated
        self._notifier = notifier or Notifier()
        self._writer = SnapshotWriter(snapshot_file, f"thermal@{gpu_index}")
        self._view = View(gpu_index, time.monotonic(), _unix_microseconds())
        self._outstanding = False
        self._looked = asyncio.Event()
        self._ready = False
        self._publish_fails = False

    async def run(self) -> None:
        """Sample and publish until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._sample())
            tasks.create_task(self._tick())

    async def _sample(self) -> None:
        thread = DriverThread("driver")
        due = time.monotonic()
        while True:
            self._outstanding = True
            observation = await thread.call(self._attempt)
            self._outstanding = False
            self._take(take(self._view, observation, time.monotonic(), _unix_microseconds()))
            self._looked.set()
            pause = self._pause(observation)
            # A late sample is not made up for: the next comes a full period after this.
            due = max(due + pause, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    async def _tick(self) -> None:
        """Publish each second, whatever the driver does; first when there is something to say."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._looked.wait(), BLIND_AFTER_SECONDS)
        while True:
            now = time.monotonic()
            self._take(age(self._view, now, _unix_microseconds()))
            self._publish()
            if not self._outstanding or self._is_fresh():
                self._notifier.watchdog()
            await asyncio.sleep(self._until_next_tick(now))

    def _take(self, view: View) -> None:
        before, self._view = self._view, view
        if view.thresholds is not None and view.thresholds != before.thresholds:
            _tell_thresholds(view.gpu_index, view.thresholds)
        if view.state == before.state:
            return
        log.info(
            "GPU %d: %s -> %s%s",
            view.gpu_index,
            before.state.value,
            view.state.value,
            f" ({view.reason})" if view.reason else "",
            extra={"fields": _fields(before, view)},
        )
        if self._ready:
            self._publish()

    def _publish(self) -> None:
        data = thermal_data(self._view, self._note)
        try:
            self._writer.publish(data)
        except OSError as error:
            # Readers see an old snapshot and take the card for blind, which is safe.
            if not self._publish_fails:
                log.error("%s can't be written: %s", self._writer.path, error.strerror)
            self._publish_fails = True
            return
        self._publish_fails = False
        self._notifier.status(status_line(data, self._simulated))
        if not self._ready:
            self._ready = True
            self._notifier.ready()

    def _until_next_tick(self, now: float) -> float:
        """A second, or less if sight is lost sooner."""
        if self._view.seen is None:
            return PUBLISH_EVERY_SECONDS
        left = self._view.seen_at + BLIND_AFTER_SECONDS - now
        return max(min(PUBLISH_EVERY_SECONDS, left), 0.0)

    def _is_fresh(self) -> bool:
        """Whether a sample came in lately, so that one outstanding call is nothing to worry at."""
        return time.monotonic() - self._view.seen_at < BLIND_AFTER_SECONDS

    def _pause(self, observation: Observation) -> float:
        if not isinstance(observation, NotSeen) or observation.trouble is Trouble.SENSOR:
            return self._period_seconds
        if observation.trouble is Trouble.NO_PLAN:
            return LOOK_FOR_PLAN_SECONDS
        return LOOK_AGAIN_SECONDS


async def _until_terminated(guard: ThermalGuard, notifier: Notifier) -> None:
    task = asyncio.ensure_future(guard.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task
    notifier.stopping()


def _configuration(places: Places) -> tuple[Configuration, str]:
    """The configuration, or the defaults and the reason: a bad file never stops the cooling."""
    try:
        return places.load(), ""
    except ConfigurationError as error:
        problems = "; ".join(str(error).splitlines())
        log.error("the configuration was refused, the defaults hold: %s", problems)
        return Configuration(), "the configuration was refused, the defaults hold"


def _tell_thresholds(gpu_index: int, thresholds: Thresholds) -> None:
    log.info(
        "GPU %d: alert %.0f C, critical %.0f C, safe %.0f C%s",
        gpu_index,
        thresholds.alert_celsius,
        thresholds.critical_celsius,
        thresholds.safe_celsius,
        "".join(f"; {note}" for note in thresholds.notes),
    )


def _fields(before: View, view: View) -> dict[str, str]:
    fields = {
        "GPUWARDEN_EVENT": "thermal-state",
        "GPU": str(view.gpu_index),
        "GPU_UUID": view.card.uuid,
        "STATE_OLD": before.state.value,
        "STATE_NEW": view.state.value,
        "REASON": view.reason,
    }
    if view.seen is not None:
        fields["TEMPERATURE_CELSIUS"] = str(view.seen.sample.temperature_celsius)
    return fields


def _unix_microseconds() -> int:
    return time.time_ns() // 1000
