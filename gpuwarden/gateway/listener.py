# SPDX-License-Identifier: Apache-2.0
"""Accepts workers on the dispatch socket: one connection a unit, strangers turned away."""

import asyncio
import itertools
import logging
import socket

from gpuwarden.gateway.channel import RecordChannel
from gpuwarden.gateway.dispatch import Dispatcher
from gpuwarden.gateway.link import WorkerLink
from gpuwarden.gateway.peers import Peer, PeerIdentity, UnknownPeerError, start_time

log = logging.getLogger(__name__)

HELLO_SECONDS = 10.0
ACCEPTS_PER_TURN = 16
ACCEPT_AGAIN_SECONDS = 1.0  # as asyncio itself waits where descriptors are used up


class WorkerListener:
    """Turns connections on ``listening`` into links of the dispatcher."""

    def __init__(
        self, listening: socket.socket, dispatcher: Dispatcher, identify: PeerIdentity
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listening = listening
        self._dispatcher = dispatcher
        self._identify = identify
        self._keys = itertools.count(1)
        self._unintroduced: dict[int, WorkerLink] = {}
        self._resuming: asyncio.TimerHandle | None = None
        listening.setblocking(False)
        self._listen()

    def close(self) -> None:
        """Accept no more; systemd keeps the socket and whoever knocks meanwhile."""
        if self._resuming is not None:
            self._resuming.cancel()
        self._loop.remove_reader(self._listening)
        self._listening.close()
        for link in list(self._unintroduced.values()):
            link.close()

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                connection, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                # It still waits there: without a pause the loop would do nothing but ask again.
                log.error("a worker's connection can't be accepted, trying on: %s", error)
                self._loop.remove_reader(self._listening)
                self._resuming = self._loop.call_later(ACCEPT_AGAIN_SECONDS, self._listen)
                return
            self._greet(connection)

    def _listen(self) -> None:
        self._loop.add_reader(self._listening, self._accept)

    def _greet(self, connection: socket.socket) -> None:
        try:
            peer = self._identify(connection)
            self._make_way(peer)
        except (UnknownPeerError, OSError) as error:
            log.warning("connection on the worker channel refused: %s", error)
            connection.close()
            return
        link = WorkerLink(next(self._keys), peer, self._dispatcher)
        self._unintroduced[link.key] = link

        def forget() -> None:
            self._unintroduced.pop(link.key, None)
            link.on_closed()

        link.channel = RecordChannel(connection, peer.pid, link.on_record, forget)
        self._loop.call_later(HELLO_SECONDS, self._expect_hello, link)

    def _expect_hello(self, link: WorkerLink) -> None:
        if self._unintroduced.pop(link.key, None) and link.key not in self._dispatcher.links:
            log.warning("pid %d said nothing for %g s", link.peer.pid, HELLO_SECONDS)
            link.close()

    def _make_way(self, peer: Peer) -> None:
        """Refuse a second connection of a unit, unless the first one's process is gone."""
        known = [*self._dispatcher.links.values(), *self._unintroduced.values()]
        for link in known:
            if peer.number is None or link.peer.number != peer.number:
                continue
            link.channel.read_pending()  # its end may be there, unread
            if link.channel.is_open and is_running(link.peer):
                raise UnknownPeerError(
                    f"worker {peer.number} is connected already (pid {link.peer.pid}),"
                    f" pid {peer.pid} is one too many"
                )
            link.close()


def is_running(peer: Peer) -> bool:
    """Whether the very process that connected still runs."""
    try:
        return start_time(peer.pid) == peer.start_time
    except OSError:
        return False
