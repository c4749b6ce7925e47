# SPDX-License-Identifier: Apache-2.0
"""medgemma-guard: the supervisor as a process. Reads, decides, acts and publishes each second."""

import asyncio
import gc
import logging
import os
import signal
from typing import Any

from gpuwarden.bus.bus import Bus
from gpuwarden.bus.errors import BusError, Busy
from gpuwarden.bus.objects.log_control import exported_log_control
from gpuwarden.bus.objects.publisher import Commands, Publisher
from gpuwarden.config import (
    Configuration,
    ConfigurationError,
    accepted_configuration,
    digest,
    load_configuration,
)
from gpuwarden.control.requests import RELOAD, ReloadAnswer
from gpuwarden.control.snapshot import SnapshotError, SnapshotWriter, boot_id, read_snapshot
from gpuwarden.control.socket import ControlError, ControlServer, serve
from gpuwarden.control.states import GuardData
from gpuwarden.guard.commands import Commands as ManagerCommands
from gpuwarden.guard.gateway import GatewayControl
from gpuwarden.guard.logs import GuardLog
from gpuwarden.guard.node import node_rules
from gpuwarden.guard.permission import Permission
from gpuwarden.guard.reload import Reloading, accept, refusal, reload
from gpuwarden.guard.status import status_line
from gpuwarden.guard.supervisor import Supervisor
from gpuwarden.guard.thermal import ThermalGuards
from gpuwarden.guard.tuning import HostTuning
from gpuwarden.names import (
    ACCEPTED_CONFIGURATION_FILE,
    BUS_NAME,
    GUARD_STATE_FILE,
    LOG_CONTROL_OBJECT,
)
from gpuwarden.systemd.activation import take_sockets
from gpuwarden.systemd.events import Event, follow, tell
from gpuwarden.systemd.journal import set_up_logging
from gpuwarden.systemd.notify import Notifier
from gpuwarden.systemd.units import Systemd
from gpuwarden.values import ServiceState
from gpuwarden.worker.pauses import settle_memory

log = logging.getLogger(__name__)

EXIT_CONFIGURATION = 78  # EX_CONFIG of sysexits.h; the unit doesn't restart on it


def main(argv: list[str]) -> int:
    """Run the supervisor until SIGTERM. Exit status 78 when no configuration is usable."""
    os.umask(0o022)  # its state is everybody's to read
    set_up_logging("info")
    notifier = Notifier()
    configuration, faults = _configuration(notifier)
    if configuration is None:
        return EXIT_CONFIGURATION
    logging.getLogger().setLevel(configuration.log.level.upper())
    asyncio.run(Service(notifier, configuration, faults).run())
    return 0


def _configuration(notifier: Notifier) -> tuple[Configuration | None, tuple[str, ...]]:
    """The files' configuration; the one accepted before if they are wrong now; and what is.

    What is right in itself and doesn't fit this node (a CPU that is gone since the last boot, say)
    doesn't keep a first start from serving as well as it can.
    """
    try:
        configuration = load_configuration(rules=node_rules())
    except ConfigurationError as error:
        why = refusal(error)
        tell(Event.CONFIGURATION_REFUSED, f"configuration: {why}", logging.ERROR, REASON=why)
        former = accepted_configuration()
        if former is not None:
            return former, _former_in_use(why)
        return _unfit_configuration(notifier, why)
    return configuration, _handed_on(configuration)


def _handed_on(configuration: Configuration) -> tuple[str, ...]:
    """What is wrong where the others can't be given it: they go on with what they have."""
    try:
        accept(configuration)
    except OSError as error:
        why = f"the configuration can't be handed on: {error.filename}: {error.strerror}"
        log.error("%s", why)
        return (why,)
    return ()


def _unfit_configuration(
    notifier: Notifier, why: str
) -> tuple[Configuration | None, tuple[str, ...]]:
    try:
        configuration = load_configuration()
    except ConfigurationError:
        notifier.status(f"configuration refused: {why}")
        return None, ()
    unfit = f"the configuration does not fit this node: {why}"
    return configuration, (unfit, *_handed_on(configuration))


class Service:
    """Wires bus, supervisor, control socket, snapshot and systemd together."""

    def __init__(
        self, notifier: Notifier, configuration: Configuration, faults: tuple[str, ...]
    ) -> None:
        self._notifier = notifier
        self._configuration = configuration
        self._writer = SnapshotWriter(GUARD_STATE_FILE, "guard")
        self._bus = Bus()
        self._bus.authorize_by(Permission(self._bus).authorize)
        self._systemd = Systemd(self._bus)
        self._supervisor = Supervisor(self._systemd, self._publish, former_state(), faults)
        self._thermal = ThermalGuards(self._supervisor)
        follow(self._supervisor.recent.told)
        self._tuning = HostTuning(self._bus, self._systemd, self._supervisor.wake)
        self._supervisor.tuning = self._tuning.look
        self._reloading = Reloading(self._reload)
        self._publisher: Publisher | None = None
        self._stop = asyncio.Event()

    def status(self) -> GuardData:
        """What the bus objects answer from."""
        assert self._supervisor.current is not None  # set by begin(), before anything is exported
        return self._supervisor.current

    def _publish(self, new: GuardData) -> None:
        """Tell a state to the bus, the snapshot's readers and ``systemctl status``."""
        if self._publisher is not None:
            self._publisher.publish(new)
        self._writer.publish_or_say(new)  # the bus answers all the same
        self._notifier.status(status_line(new))

    async def run(self) -> None:
        """Serve until SIGTERM."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        control: list[ControlServer] = []
        try:
            await self._bus.connect()
            await self._tuning.begin()
            await self._supervisor.begin()
            manager = ManagerCommands(
                self._supervisor.operations,
                self._supervisor.rolling,
                self._supervisor.reaper,
                self._reloading,
            )
            commands = Commands(self._thermal, manager, GatewayControl())
            self._bus.objects.export(LOG_CONTROL_OBJECT, [exported_log_control(GuardLog())])
            self._publisher = Publisher(self._bus, self, commands)
            self._supervisor.reaper.found = self._publisher.orphan_found
            self._supervisor.reaper.reaped = self._publisher.orphan_reaped
            for listener in take_sockets().get("control", []):
                control.append(await serve(listener, {RELOAD: self._asked_to_reload}))
            await self._bus.own_name(BUS_NAME)
            self._notifier.ready()
            self._supervisor.open_up(digest(self._configuration))
            self._supervisor.beside(self._tuning.start(), "tune the host")
            _keep_what_is_there()
            while not self._stop.is_set():
                await self._turn()
            self._notifier.stopping()
        finally:
            for server in control:
                await server.close()
            await self._bus.close()

    async def _turn(self) -> None:
        turn = asyncio.create_task(self._supervisor.turn())
        stop = asyncio.create_task(self._stop.wait())
        await asyncio.wait((turn, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not turn.done():
            turn.cancel()
            return
        try:
            turn.result()
        except BusError as error:
            # The bus or systemd is away: what is known stays published, the next turn tries again.
            log.warning("systemd can't be asked: %s", error)
        if self._supervisor.current and self._supervisor.current.state is ServiceState.STOPPING:
            # The next start begins afresh: nothing accepted, nothing remembered as stopped.
            ACCEPTED_CONFIGURATION_FILE.unlink(missing_ok=True)
        self._notifier.watchdog()

    async def _asked_to_reload(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return (await self._reloading.reload()).model_dump()
        except Busy as error:
            raise ControlError("Busy", str(error)) from error

    async def _reload(self) -> ReloadAnswer:
        answer = await reload(
            self._supervisor.replan,
            self._supervisor.present_cards,
            self._thermal.reload,
            self._tuning.reload,
            self._supervisor.outdated_workers,
        )
        self._supervisor.faults = _former_in_use(*answer.problems[:1])
        self._supervisor.wake()
        return answer


def _keep_what_is_there() -> None:
    """Take what the start has made, modules above all, out of the garbage collector's sight.

    What is left to look at is small, so it can look often: by CPython's own thresholds up to 70,000
    objects in cycles, exceptions with their frames, some MiB of them, may wait to be found.
    """
    settle_memory()
    gc.set_threshold(700, 5, 2)


def _former_in_use(*why: str) -> tuple[str, ...]:
    return tuple(f"the former configuration is in use: {each}" for each in why)


def former_state() -> GuardData | None:
    """What a former guard of this boot published last."""
    try:
        snapshot = read_snapshot(GUARD_STATE_FILE, GuardData)
    except SnapshotError:
        return None
    return snapshot.data if snapshot.boot_id == boot_id() else None
