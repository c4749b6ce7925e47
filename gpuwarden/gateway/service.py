# SPDX-License-Identifier: Apache-2.0
"""medgemma-gateway: the front door as a process."""

import argparse
import asyncio
import ctypes
import gc
import logging
import signal
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from gpuwarden.config import ConfigurationError, effective_configuration
from gpuwarden.control.requests import DRAIN, RELOAD, UNDRAIN, ReloadAnswer
from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.control.socket import ControlError, ControlServer, Handler
from gpuwarden.control.socket import serve as serve_control
from gpuwarden.gateway.access import access_of, read_keys
from gpuwarden.gateway.buffers import BufferPool
from gpuwarden.gateway.canary import Canary
from gpuwarden.gateway.connection import Server
from gpuwarden.gateway.dispatch import Dispatcher
from gpuwarden.gateway.door import PAUSE_FILE, Door
from gpuwarden.gateway.drains import Drains
from gpuwarden.gateway.ecomode import LEASE_FILE, EcoMode
from gpuwarden.gateway.endpoints import Endpoints
from gpuwarden.gateway.express import Express
from gpuwarden.gateway.heatwatch import FileOfCard, HeatWatch
from gpuwarden.gateway.images import ImageStore, image_limits
from gpuwarden.gateway.jobs.service import JobPlace, Jobs
from gpuwarden.gateway.listener import WorkerListener
from gpuwarden.gateway.memory import MemoryWatch
from gpuwarden.gateway.peers import PeerIdentity, same_user, worker_of_unit
from gpuwarden.gateway.publish import Publisher, ServiceNotifier, feed_watchdog
from gpuwarden.gateway.setaside import SET_ASIDE_FILE
from gpuwarden.gateway.settings import GatewaySettings, gateway_settings
from gpuwarden.gateway.unexpected import tell_unexpected
from gpuwarden.names import (
    GATEWAY_MEMORY_FILE,
    GATEWAY_STATE_FILE,
    JOBS_DIRECTORY,
    thermal_snapshot_file,
)
from gpuwarden.systemd.activation import take_sockets
from gpuwarden.systemd.journal import set_up_logging
from gpuwarden.systemd.notify import Notifier
from gpuwarden.worker.pauses import settle_memory

log = logging.getLogger(__name__)

EXIT_CONFIGURATION = 78  # EX_CONFIG of sysexits.h
BACKLOG = 1024
DRAIN_SECONDS = 17.0  # aiohttp may wait for it twice; the unit's TimeoutStopSec is 40
COLLECTED_OBJECTS = 5000  # made and not freed since the last time; Python's own is 700
PR_SET_DUMPABLE = 4  # prctl(2)


class StartError(Exception):
    """The service can't start; the text says what is missing and where it comes from."""


@dataclass(frozen=True)
class Sockets:
    """Where clients and workers come in, and how a worker is recognised there."""

    http: list[socket.socket]
    dispatch: socket.socket
    identify: PeerIdentity
    control: list[socket.socket] = field(default_factory=list)


def main(argv: list[str]) -> int:
    """Serve until SIGTERM. Exit status 78 without a usable configuration, 1 without sockets."""
    make_undumpable()
    set_up_logging("info")
    arguments = parse_arguments(argv)
    notifier = Notifier()
    try:
        configuration = effective_configuration()
        logging.getLogger().setLevel(configuration.log.level.upper())
        sockets = open_sockets(arguments)
    except ConfigurationError as error:
        log.error("%s", error)
        notifier.status(f"configuration: {error}")
        return EXIT_CONFIGURATION
    except StartError as error:
        log.error("%s", error)
        notifier.status(str(error))
        return 1
    writer = SnapshotWriter(arguments.state, "gateway")
    thermal = thermal_files(arguments.thermal)
    jobs = JobPlace(arguments.jobs)
    settle_memory()
    asyncio.run(serve(gateway_settings(configuration), sockets, writer, notifier, thermal, jobs))
    return 0


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """The command line: only for running without systemd."""
    parser = argparse.ArgumentParser(prog="gpuwarden-daemon gateway")
    parser.add_argument("--http", metavar="HOST:PORT", help="listen here, not on systemd's socket")
    parser.add_argument("--dispatch", metavar="PATH", type=Path, help="workers' socket, likewise")
    parser.add_argument("--state", metavar="FILE", type=Path, default=GATEWAY_STATE_FILE)
    parser.add_argument("--thermal", metavar="FOLDER", type=Path, help="the guards' states")
    parser.add_argument("--jobs", metavar="FOLDER", type=Path, default=JOBS_DIRECTORY)
    arguments = parser.parse_args(argv)
    if bool(arguments.http) != bool(arguments.dispatch):
        parser.error("--http and --dispatch go together")
    return arguments


def thermal_files(folder: Path | None) -> FileOfCard:
    """Where the thermal guards publish: in that folder if one is given, or where they always do."""
    return thermal_snapshot_file if folder is None else lambda card: folder / f"{card}.json"


def open_sockets(arguments: argparse.Namespace) -> Sockets:
    """The listening sockets: systemd's, or those of the command line. Raises StartError."""
    if arguments.http:
        return Sockets([bind_http(arguments.http)], bind_dispatch(arguments.dispatch), same_user)
    handed = take_sockets()
    for name, unit in (
        ("http", "medgemma-gateway.socket"),
        ("dispatch", "medgemma-dispatch.socket"),
    ):
        if not handed.get(name):
            raise StartError(
                f'no socket named "{name}" was handed over by systemd: it comes from {unit}'
                f' (FileDescriptorName={name}); see "systemctl status {unit}"'
            )
    dispatch = handed["dispatch"][0]
    if dispatch.family != socket.AF_UNIX or dispatch.type != socket.SOCK_SEQPACKET:
        raise StartError("medgemma-dispatch.socket needs ListenSequentialPacket= with a path")
    http = handed["http"] + handed.get("local", [])
    return Sockets(http, dispatch, worker_of_unit, handed.get("control", []))


def bind_http(address: str) -> socket.socket:
    """Listen on HOST:PORT. Raises StartError naming the address."""
    host, _, port = address.rpartition(":")
    try:
        return socket.create_server((host or "127.0.0.1", int(port)), backlog=BACKLOG)
    except (OSError, ValueError) as error:
        raise StartError(f"can't listen on {address}: {error}") from error


def bind_dispatch(path: Path) -> socket.socket:
    """Listen for workers on ``path``. Raises StartError naming it."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        path.unlink(missing_ok=True)
        listening.bind(str(path))
        path.chmod(0o600)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise StartError(f"can't listen on {path}: {error}") from error
    return listening


def make_undumpable() -> None:
    """No core, no tracing by our own user: patients' data is in this process."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_DUMPABLE)")


def spare_collector() -> None:
    """Have the garbage collector look at what is made from now on, and not after every request.

    What stays for good would be looked through again and again, while everybody waits.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECTED_OBJECTS, *gc.get_threshold()[1:])


class Service:
    """Wires sockets, dispatcher, HTTP server and publisher together."""

    def __init__(
        self,
        settings: GatewaySettings,
        sockets: Sockets,
        writer: SnapshotWriter,
        notifier: ServiceNotifier,
        thermal: FileOfCard = thermal_snapshot_file,
        jobs: JobPlace | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._notifier = notifier
        self._sockets = sockets
        self._publisher = Publisher(writer, notifier)
        self.pool = BufferPool(
            settings.pool_bytes, loop.call_soon_threadsafe, loop.call_later, beside=True
        )
        self.dispatcher = Dispatcher(settings, self.pool, self._on_change)
        self.jobs = Jobs(jobs or JobPlace(), self.dispatcher, self._publisher.changed)
        self._publisher.jobs = self.jobs.published
        self._drains = Drains(self.dispatcher)
        self.eco = EcoMode(self.dispatcher.limit, writer.path.with_name(LEASE_FILE))
        self._heat = HeatWatch(self.eco.limit, thermal)
        self.dispatcher.on_card = self._heat.watch
        memory_file = writer.path.with_name(GATEWAY_MEMORY_FILE.name)
        self.memory = MemoryWatch(self.dispatcher, memory_file)
        self.dispatcher.on_figures = self.memory.told
        self._door = Door(self.dispatcher, writer.path.with_name(PAUSE_FILE))
        self.dispatcher.set_aside.keep_in(writer.path.with_name(SET_ASIDE_FILE))
        self._listener = WorkerListener(sockets.dispatch, self.dispatcher, sockets.identify)
        self.images = ImageStore(self.pool, image_limits(settings), settings.upload_limit_bytes)
        self._keys = read_keys()
        access = access_of(settings, self._keys)
        self._endpoints = Endpoints(self.dispatcher, self.images, self.eco, access, self.jobs)
        self._routes = self._endpoints.routes()
        express = Express(self._routes, self._endpoints.intake)
        server = Server(self._routes, express, lambda: self.dispatcher.settings)
        self._runner = web.ServerRunner(server, shutdown_timeout=DRAIN_SECONDS)
        self._canary = Canary(self.dispatcher.links.values)
        self._control: list[ControlServer] = []

    async def start(self) -> None:
        """Serve clients and workers."""
        await self.jobs.open()
        await self._runner.setup()
        for http in self._sockets.http:
            await web.SockSite(self._runner, http, backlog=BACKLOG).start()
        orders: dict[str, Handler] = {
            RELOAD: self.reload,
            DRAIN: self._drains.drain,
            UNDRAIN: self._drains.undrain,
            **self._canary.handlers(),
            **self._door.handlers,
        }
        for control in self._sockets.control:
            self._control.append(await serve_control(control, orders))
        self._notifier.ready()

    def reload(self, request: dict[str, Any]) -> dict[str, Any]:
        """Take a changed configuration into use. Raises ControlError if there is none to be had."""
        try:
            configuration = effective_configuration()
        except ConfigurationError as error:
            raise ControlError("Failed", f"the former configuration stays: {error}") from error
        settings = gateway_settings(configuration)
        logging.getLogger().setLevel(configuration.log.level.upper())
        self.dispatcher.apply(settings)
        self.images.limits = image_limits(settings)
        self.images.body_limit_bytes = settings.upload_limit_bytes
        self.jobs.apply()
        self._routes.header_limit_bytes = settings.header_limit_bytes
        self._routes.access = access_of(settings, self._keys)
        self._publisher.changed()
        return ReloadAnswer(applied=["gateway"]).model_dump()

    def _on_change(self) -> None:
        self._publisher.changed()
        self._drains.changed()
        self.jobs.wake()

    async def run(self, stop: asyncio.Event) -> None:
        """Publish, watch the heat and prove to be alive until ``stop`` is set.

        A failure of any ends this.
        """
        publishing = self._publisher.run(self.dispatcher)
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(publishing),
                group.create_task(self._heat.run()),
                group.create_task(self.jobs.run()),
                group.create_task(feed_watchdog(self._notifier)),
            ]
            await stop.wait()
            for task in tasks:
                task.cancel()

    async def close(self) -> None:
        """Finish what was accepted, then hang up on everybody."""
        self.dispatcher.queue.draining = True
        for control in self._control:
            await control.close()
        meanwhile = [
            asyncio.create_task(feed_watchdog(self._notifier)),
            asyncio.create_task(self._heat.run()),
        ]
        closing_jobs = asyncio.create_task(self.jobs.close(DRAIN_SECONDS))
        await self._runner.cleanup()  # closes the listening sockets, waits for what runs
        await closing_jobs
        for task in meanwhile:
            task.cancel()
        self._publisher.publish(self.dispatcher)
        self._door.close()
        self.eco.close()
        self.dispatcher.set_aside.close()
        await self._endpoints.intake.close()
        self._listener.close()
        self.dispatcher.close()
        self.images.close()
        self.pool.close()


async def serve(
    settings: GatewaySettings,
    sockets: Sockets,
    writer: SnapshotWriter,
    notifier: ServiceNotifier,
    thermal: FileOfCard = thermal_snapshot_file,
    jobs: JobPlace | None = None,
) -> None:
    """Serve on ``sockets`` until SIGTERM, then finish what was accepted."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.set_exception_handler(tell_unexpected)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if settings.upload_limit_bytes < settings.body_limit_bytes:
        log.warning("pool_bytes limits bodies to %d bytes", settings.upload_limit_bytes)
    service = Service(settings, sockets, writer, notifier, thermal, jobs)
    await service.start()
    spare_collector()
    try:
        await service.run(stop)
    finally:
        notifier.stopping()
        await service.close()
