# SPDX-License-Identifier: Apache-2.0
"""medgemma-tuning: has the host tuned to the time of day, once, or gives back what it had."""

import asyncio
import fcntl
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gpuwarden import names
from gpuwarden.bus.bus import Bus
from gpuwarden.bus.errors import BusError
from gpuwarden.config import Configuration, ConfigurationError, effective_configuration
from gpuwarden.config.tuning import TuningSettings
from gpuwarden.control.host import TuningData
from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.systemd.events import Event, tell
from gpuwarden.systemd.journal import set_up_logging
from gpuwarden.systemd.notify import Notifier
from gpuwarden.systemd.units import Systemd
from gpuwarden.tuning.decision import Wish
from gpuwarden.tuning.host import UntunableError
from gpuwarden.tuning.record import RecordError
from gpuwarden.tuning.switch import Switch, SwitchPlaces
from gpuwarden.tuning.tuned import TunedError

COMPONENT = "tuning"
EXIT_FAILED, EXIT_USAGE = 1, 2
# A profile is in force until the next one or the next boot: a hundred years.
VALID_MILLISECONDS = 100 * 365 * 24 * 3600 * 1000
OFF = "the host is left as it is: [tuning] enabled = false"
UNTUNED = (
    "as the system has them stay: transparent huge pages, NVMe disks' scheduler and queue depth, "
    "zswap, the scheduler's time slice, swappiness, dirty limits, the CPUs' governor"
)


@dataclass(frozen=True)
class Places:
    """Where everything lies; the defaults are the contract's."""

    load: Callable[[], Configuration] = effective_configuration
    bus_address: str | None = None
    state_file: Path = names.TUNING_STATE_FILE
    switch: SwitchPlaces = field(default_factory=SwitchPlaces)


def main(argv: list[str], places: Places | None = None) -> int:
    """Do what ``argv[0]`` wishes. Exit status 0 also where this host can't be tuned."""
    places = places or Places()
    set_up_logging("info")
    if len(argv) != 1 or argv[0] not in list(Wish):
        wishes = ", ".join(Wish)
        logging.getLogger(__name__).error(
            "tuning takes one of %s; found %r", wishes, " ".join(argv)
        )
        return EXIT_USAGE
    try:
        settings = places.load().tuning
    except ConfigurationError as error:
        return Run(places).fail(str(error).splitlines()[0])
    with _alone(places.state_file.with_name("lock")):
        return asyncio.run(Run(places).do(Wish(argv[0]), settings))


class Run:
    """One run: what it comes to is published, told to the journal and to ``systemctl status``."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._notifier = Notifier()

    async def do(self, wish: Wish, settings: TuningSettings) -> int:
        """Do what is wished. Gives the exit status."""
        puts_back = wish in (Wish.OFF, Wish.END)
        if not puts_back and not settings.enabled:
            self._say(Event.TUNING_LEFT_OUT, OFF, TuningData())
            return 0
        bus = Bus(self._places.bus_address)
        systemd = Systemd(bus)
        switcher = Switch(bus, systemd, self._places.switch)
        try:
            await bus.connect()
            await systemd.subscribe(lambda: None)
            if puts_back:
                done = await switcher.restore(wish)
                self._say(Event.TUNING_RESTORED, done, TuningData())
            else:
                await self._tune(switcher, wish, settings)
        except (TunedError, UntunableError, RecordError, BusError) as error:
            return self.fail(str(error), await switcher.in_force())
        finally:
            await bus.close()
        return 0

    async def _tune(self, switcher: Switch, wish: Wish, settings: TuningSettings) -> None:
        time_of_day = await switcher.time_of_day(wish)
        try:
            data = await switcher.tune(time_of_day, settings)
        except UntunableError as error:
            untuned = TuningData(time_of_day=time_of_day, untuned=str(error))
            self._say(Event.TUNING_LEFT_OUT, f"{error}; {UNTUNED}", untuned, logging.WARNING)
            return
        text = f"{data.profile} is in force ({time_of_day}), verified"
        if data.note:
            text = f"{data.profile} is in force ({time_of_day}), but {data.note}"
        event = Event.TUNING_DIFFERS if data.note else Event.TUNING_PROFILE
        self._say(event, text, data, logging.WARNING if data.note else logging.INFO)

    def fail(self, why: str, profile: str = "") -> int:
        """Say what is wrong, and which profile is in force all the same. Gives the exit status."""
        data = TuningData(profile=profile, fault=why)
        self._say(Event.TUNING_FAILED, why, data, logging.ERROR)
        return EXIT_FAILED

    def _say(self, event: Event, text: str, data: TuningData, level: int = logging.INFO) -> None:
        tell(
            event,
            text,
            level,
            STATE_NEW=data.profile,
            REASON=data.fault or data.untuned or data.note,
        )
        self._notifier.status(text)
        SnapshotWriter(self._places.state_file, COMPONENT, VALID_MILLISECONDS).publish(data)


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One run at a time: after a boot both timers may fire for a time they have missed."""
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
