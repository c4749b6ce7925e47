# SPDX-License-Identifier: Apache-2.0
"""medgemma-scan@N: who holds the memory of card N, looked at every few seconds. No bus in it."""

import asyncio
import logging
import pwd
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gpuwarden import names
from gpuwarden.config import Configuration, ConfigurationError, effective_configuration
from gpuwarden.config.scan import ScanSettings
from gpuwarden.control.lease_store import LeaseStore
from gpuwarden.nvml.library import choose_library
from gpuwarden.scan.classify import COMM_LIMIT
from gpuwarden.scan.evidence import Customs
from gpuwarden.scan.proc import PROC
from gpuwarden.scan.processes import INITIAL_PID_NAMESPACE, RUNNING_UNITS, ProcessReader
from gpuwarden.scan.scanner import Scanner
from gpuwarden.scan.watch import CardWatch
from gpuwarden.systemd.journal import set_up_logging
from gpuwarden.systemd.lifetime import until_terminated

log = logging.getLogger(__name__)

WORKER_USER = "gpuwarden-worker"


@dataclass(frozen=True)
class Places:
    """Where everything lies; the defaults are the contract's."""

    load: Callable[[], Configuration] = effective_configuration
    configuration_file: Path = names.ACCEPTED_CONFIGURATION_FILE
    plan_file: Path = names.PLAN_FILE
    snapshot_file: Callable[[int], Path] = names.scan_snapshot_file
    lease_file: Callable[[int], Path] = names.thermal_lease_file
    running_units: Path = RUNNING_UNITS
    worker_user: str = WORKER_USER
    host_namespace: str = INITIAL_PID_NAMESPACE


class Settings:
    """What the accepted configuration says now: it is read again when it has changed.

    So a reload reaches a scan without its being asked; what the guard has accepted fits it.
    """

    def __init__(self, places: Places) -> None:
        self._places = places
        self._stamp: tuple[int, int] | None = None
        self._settings = ScanSettings()
        self._worker_uid: int | None = None

    def __call__(self) -> tuple[float, Customs]:
        """The seconds from one look to the next, and what is known beforehand."""
        stamp = _stamp(self._places.configuration_file)
        if self._stamp is None or stamp != self._stamp:
            self._read()
            self._stamp = stamp
        monitoring = frozenset(name[:COMM_LIMIT] for name in self._settings.monitoring)
        if self._worker_uid is None:
            self._worker_uid = _uid_of(self._places.worker_user)
        return self._settings.period_seconds, Customs(monitoring, self._worker_uid)

    def _read(self) -> None:
        try:
            configuration = self._places.load()
        except ConfigurationError as error:
            problems = "; ".join(str(error).splitlines())
            log.error("the configuration was refused, what held before holds on: %s", problems)
            return
        self._settings = configuration.scan
        logging.getLogger().setLevel(configuration.log.level.upper())


def main(argv: list[str], places: Places | None = None) -> int:
    """Watch the card whose index is ``argv[0]``, until SIGTERM."""
    places = places or Places()
    set_up_logging("info")
    if len(argv) != 1 or not (argv[0].isascii() and argv[0].isdigit()):
        log.error("scan takes one argument, the card's index; found %r", " ".join(argv))
        return 2
    asyncio.run(_serve(int(argv[0]), places))
    return 0


async def _serve(index: int, places: Places) -> None:
    library = choose_library()
    if library.note:
        log.warning("%s", library.note)
    if library.simulated:
        log.warning("SIMULATED: GPU %d is the simulator's", index)
    reader = ProcessReader(PROC, places.running_units, places.host_namespace)
    watch = CardWatch(
        index,
        Scanner(index, places.plan_file, library, reader),
        places.snapshot_file(index),
        Settings(places),
        LeaseStore(places.lease_file(index)).peek,
        simulated=library.simulated,
    )
    await until_terminated(watch.run(), watch.stop)


def _stamp(file: Path) -> tuple[int, int]:
    """Changes whenever another file is renamed into its place."""
    try:
        status = file.stat()
    except OSError:
        return 0, 0  # nothing accepted yet: the files themselves hold
    return status.st_ino, status.st_mtime_ns


def _uid_of(user: str) -> int | None:
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None
