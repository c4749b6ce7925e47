# SPDX-License-Identifier: Apache-2.0
"""What stands for the journal: takes entries in its native form, field by field."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpuwarden.systemd.events import Event
from tests.events import lacking
from tests.waiting import wait_until

LARGEST_BYTES = 1 << 16
LOOK_EVERY_SECONDS = 0.2

Entry = dict[str, str]


class JournalPeer:
    """The entries that came in, oldest first."""

    def __init__(self, path: Path) -> None:
        self.entries: list[Entry] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(LOOK_EVERY_SECONDS)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._take, daemon=True)
        self._thread.start()

    def of(self, event: str, gpu: int = 0) -> list[Entry]:
        """The entries of an event of a card."""
        wanted = {"GPUWARDEN_EVENT": event, "GPU": str(gpu)}
        return [entry for entry in list(self.entries) if wanted.items() <= entry.items()]

    def wait_for(self, event: str, gpu: int = 0, count: int = 1) -> list[Entry]:
        """So many entries of an event of a card, once they are there."""
        wait_until(lambda: len(self.of(event, gpu)) >= count)
        return self.of(event, gpu)

    def wait_for_words(self, event: str, words: str, gpu: int = 0) -> None:
        """Until an entry of an event says so: others of the same may stand there already."""
        wait_until(lambda: any(words in entry["MESSAGE"] for entry in self.of(event, gpu)))

    def changes(self, gpu: int = 0) -> list[str]:
        """The states of a card, in the order in which it entered them."""
        return [entry["STATE_NEW"] for entry in self.of("thermal-state", gpu)]

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()

    def _take(self) -> None:
        while not self._ended.is_set():
            try:
                self.entries.append(decode(self._socket.recv(LARGEST_BYTES)))
            except TimeoutError:
                continue


def decode(datagram: bytes) -> Entry:
    """The fields of one entry."""
    fields: Entry = {}
    while datagram:
        line, _, datagram = datagram.partition(b"\n")
        name, is_one_line, value = line.partition(b"=")
        if not is_one_line:
            size = int.from_bytes(datagram[:8], "little")
            value, datagram = datagram[8 : 8 + size], datagram[9 + size :]
        fields[name.decode()] = value.decode()
    return fields


@contextmanager
def journal_at(path: Path) -> Iterator[JournalPeer]:
    """A journal at work."""
    peer = JournalPeer(path)
    try:
        yield peer
    finally:
        peer.close()
    events = {event.label: event for event in Event}
    for entry in peer.entries:
        if event := events.get(entry.get("GPUWARDEN_EVENT", "")):
            assert not (problem := lacking(event, entry)), problem
