# SPDX-License-Identifier: Apache-2.0
"""The bare steps between two processes: a small record there and back, an image read in place."""

import mmap
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.bench.dataplane.report import middle
from tests.bench.dataplane.served.work import prepare

RECORD = bytes(200)
RECORD_ROUND_TRIPS = 2000
READS = 8


def raw_floors(image_bytes: int, rounds: int) -> list[tuple[str, str]]:
    """The steps with their times."""
    trips = middle([median_seconds(round_trips) for _ in range(rounds)])
    alone = middle(
        [median_seconds(lambda: reads(image_bytes, shared=False)) for _ in range(rounds)]
    )
    there = middle([median_seconds(lambda: reads(image_bytes, shared=True)) for _ in range(rounds)])
    megabytes = image_bytes >> 20
    return [
        ("200 bytes to another process and back (SOCK_SEQPACKET)", f"{1e6 * trips:.0f} us"),
        (f"{megabytes} MiB added up by the process that has them", f"{1e3 * alone:.2f} ms"),
        (f"{megabytes} MiB in a memfd added up by another process", f"{1e3 * there:.2f} ms"),
    ]


def median_seconds(step: Callable[[], list[float]]) -> float:
    """Of the times of one round."""
    return middle(step())


def round_trips() -> list[float]:
    """Times of small records to another process and back."""
    with other_process(echo) as connection:
        return [timed(lambda: answer_to(connection, RECORD)) for _ in range(RECORD_ROUND_TRIPS)]


def reads(image_bytes: int, *, shared: bool) -> list[float]:
    """Times of adding up an image, here or by another process that has mapped the same memory."""
    descriptor = os.memfd_create("image")
    os.write(descriptor, bytes(range(256)) * (image_bytes // 256))
    image = mmap.mmap(descriptor, image_bytes, mmap.MAP_SHARED, mmap.PROT_READ)
    os.close(descriptor)
    if not shared:
        prepare(image)
        return [timed(lambda: prepare(image)) for _ in range(READS)]

    def read_for(connection: socket.socket) -> None:
        while connection.recv(1):
            prepare(image)
            connection.send(b".")

    with other_process(read_for) as connection:
        answer_to(connection, b".")  # its page tables are made
        return [timed(lambda: answer_to(connection, b".")) for _ in range(READS)]


def timed(step: Callable[[], object]) -> float:
    """Seconds of one step."""
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def answer_to(connection: socket.socket, record: bytes) -> bytes:
    """Send a record and wait for what comes back."""
    connection.send(record)
    return connection.recv(len(RECORD))


def echo(connection: socket.socket) -> None:
    """Give everything back."""
    while record := connection.recv(len(RECORD)):
        connection.send(record)


@contextmanager
def other_process(serve: Callable[[socket.socket], None]) -> Iterator[socket.socket]:
    """A copy of this process at the other end of a socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        ours.close()
        try:
            serve(theirs)
        finally:
            os._exit(0)
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        os.waitpid(pid, 0)
