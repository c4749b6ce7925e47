# SPDX-License-Identifier: Apache-2.0
"""A running front door on a random loopback port, for tests."""

import asyncio
import contextlib
import json
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpuwarden.control.snapshot import SnapshotWriter, read_snapshot
from gpuwarden.control.states import GatewayData, ThermalData
from gpuwarden.gateway.jobs.keys import StoreKey
from gpuwarden.gateway.jobs.service import JobPlace
from gpuwarden.gateway.peers import PeerIdentity, same_user
from gpuwarden.gateway.service import Service, Sockets, bind_dispatch
from gpuwarden.gateway.settings import GatewaySettings
from gpuwarden.values import ThermalState
from tests.integration import gateway_peer
from tests.integration.described import undescribed_error
from tests.integration.gateway_peer import GatewayPeer

DEADLINE_SECONDS = gateway_peer.DEADLINE_SECONDS
CARDS = 10
LONG_MILLISECONDS = 3_600_000  # of a guard that has spoken once, for tests about other things


@dataclass
class RecordingNotifier:
    calls: list[str] = field(default_factory=list)

    def ready(self) -> None:
        self.calls.append("ready")

    def stopping(self) -> None:
        self.calls.append("stopping")

    def status(self, text: str) -> None:
        self.calls.append(f"status: {text}")

    def watchdog(self) -> None:
        self.calls.append("watchdog")

    def watchdog_interval_seconds(self) -> float | None:
        return 0.05


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.body)
        return document

    @property
    def error(self) -> str:
        kind: str = self.json["error"]["type"]
        return kind


class GatewayNode:
    def __init__(self, service: Service, port: int, folder: Path, guards: "ThermalGuards") -> None:
        self.service = service
        self.port = port
        self.address = "127.0.0.1"
        self.dispatch_path = folder / "dispatch.sock"
        self.state_path = folder / "state.json"
        self.guards = guards
        self.notifier = RecordingNotifier()
        self._peers: list[GatewayPeer] = []
        self._closing: asyncio.Task[None] | None = None
        self.ordered_to_stop = asyncio.Event()
        self.running: asyncio.Task[None]

    async def worker(
        self, number: int = 0, *, auto: bool = True, max_batch: int = 4, **said: Any
    ) -> GatewayPeer:
        peer = await self.busy_worker(number, auto=auto, max_batch=max_batch, **said)
        await self.until(lambda: any(one.number == number for one in self.ready_links()))
        return peer

    async def busy_worker(
        self, number: int = 0, *, auto: bool = True, max_batch: int = 4, **said: Any
    ) -> GatewayPeer:
        """A worker that may be given something before anybody sees it free."""
        peer = GatewayPeer(self.dispatch_path, number, max_batch=max_batch, **said)
        peer.answers_by_itself = auto
        self._peers.append(peer)
        await peer.become_ready()
        return peer

    def ready_links(self) -> list[Any]:
        links = self.service.dispatcher.links.values()
        return [link for link in links if link.seat.serving and link.seat.credit]

    async def until(self, condition: Callable[[], bool], seconds: float = DEADLINE_SECONDS) -> None:
        """Wait until a state that only the event loop can bring about is reached."""
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - no one event stands for all conditions
                await asyncio.sleep(0.002)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(self.address, self.port)

    async def post(
        self,
        body: bytes,
        *,
        path: str = "/predict",
        media_type: str | None = "application/octet-stream",
        headers: dict[str, str] | None = None,
        method: str = "POST",
        seconds: float = DEADLINE_SECONDS,
    ) -> Reply:
        reader, writer = await self.connect()
        head = {"Host": f"{self.address}:{self.port}", "Content-Length": str(len(body))}
        if media_type:
            head["Content-Type"] = media_type
        head |= headers or {}
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        with contextlib.suppress(ConnectionError):
            # At once, as clients do: what is small comes whole.
            head_bytes = f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode(
                "utf-8", "surrogateescape"
            )
            writer.write(head_bytes + body)
            await writer.drain()
        try:
            reply = await read_reply(reader, seconds)
        finally:
            writer.close()
        assert undescribed_error(method, path, reply.status, reply.body) is None
        return reply

    async def get(self, path: str, **headers: str) -> Reply:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.post(b"", path=path, media_type=None, method="GET", headers=named)

    def snapshot(self) -> GatewayData:
        return read_snapshot(self.state_path, GatewayData).data

    def stop(self) -> asyncio.Task[None]:
        self._closing = self._closing or asyncio.create_task(self.service.close())
        return self._closing

    def hang_up(self) -> None:
        for peer in self._peers:
            peer.close()


class ThermalGuards:
    """The states that thermal guards publish, without guards; all cards are cool at first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._writers: dict[int, SnapshotWriter] = {}
        for card in range(CARDS):
            self.publish(card)

    def file_of(self, card: int) -> Path:
        return self.folder / f"{card}.json"

    def publish(
        self, card: int, *, valid_milliseconds: int = LONG_MILLISECONDS, **changes: Any
    ) -> None:
        fallback = SnapshotWriter(self.file_of(card), "thermal")
        writer = self._writers.setdefault(card, fallback)
        writer.valid_milliseconds = valid_milliseconds
        cool: dict[str, Any] = {"state": ThermalState.NORMAL, "since": 0}
        data = ThermalData(
            index=card,
            uuid=f"GPU-{card}",
            name="Simulated",
            pci_address="",
            numa_node=0,
            **(cool | changes),
        )
        writer.publish(data)

    def vanish(self, card: int) -> None:
        self.file_of(card).unlink()


async def read_reply(reader: asyncio.StreamReader, seconds: float = DEADLINE_SECONDS) -> Reply:
    async with asyncio.timeout(seconds):
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status_line, *lines = head.split("\r\n")
        headers = {}
        for line in lines:
            name, _, value = line.partition(": ")
            if name:
                headers[name.lower()] = value
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Reply(int(status_line.split()[1]), headers, body)


def job_place(folder: Path) -> JobPlace:
    """A new, empty store."""
    folder.mkdir()
    return JobPlace(folder, lambda: StoreKey(bytes(range(32))))


def unix_listener(path: Path) -> socket.socket:
    """Root's own door."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen()
    return listener


@contextlib.asynccontextmanager
async def gateway_node(
    identify: PeerIdentity = same_user,
    control: list[socket.socket] | None = None,
    address: str = "127.0.0.1",
    jobs: JobPlace | None = None,
    dualstack: bool = False,
    local: Path | None = None,
    **settings: Any,
) -> AsyncIterator[GatewayNode]:
    with tempfile.TemporaryDirectory(prefix="gateway-") as name:
        folder = Path(name)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        http = socket.create_server((address, 0), family=family, dualstack_ipv6=dualstack)
        port = http.getsockname()[1]
        doors = [http, *([unix_listener(local)] if local else [])]
        sockets = Sockets(doors, bind_dispatch(folder / "dispatch.sock"), identify, control or [])
        notifier = RecordingNotifier()
        writer = SnapshotWriter(folder / "state.json", "gateway")
        guards = ThermalGuards(folder / "thermal")
        limits = GatewaySettings(**settings)
        service = Service(
            limits, sockets, writer, notifier, guards.file_of, jobs or job_place(folder / "jobs")
        )
        node = GatewayNode(service, port, folder, guards)
        node.address = address
        node.notifier = notifier
        await service.start()
        node.running = asyncio.create_task(service.run(node.ordered_to_stop))
        try:
            yield node
        finally:
            node.ordered_to_stop.set()
            await node.running
            node.hang_up()
            await asyncio.wait_for(node.stop(), DEADLINE_SECONDS)
