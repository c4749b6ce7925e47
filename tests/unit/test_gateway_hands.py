# SPDX-License-Identifier: Apache-2.0
"""Threads that read large bodies."""

import socket
import threading
from collections.abc import Iterator

import pytest

from gpuwarden.gateway.hands import read_on, zero

MIB = 1 << 20


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def test_a_body_is_read_to_its_end(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    body = bytes(range(256)) * (8 * MIB // 256)
    target = bytearray(len(body))
    sending = threading.Thread(target=theirs.sendall, args=(body + b"more",))
    sending.start()
    assert read_on(ours.dup(), memoryview(target), lambda: True) == len(body)
    sending.join()
    assert target == body
    assert ours.recv(10) == b"more"


def test_a_sender_that_pauses_is_given_back(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.sendall(b"half")
    target = bytearray(8)
    assert read_on(ours.dup(), memoryview(target), lambda: True) == 4
    assert target == b"half\0\0\0\0"


def test_the_end_of_a_connection_is_left_for_its_reader(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    theirs.sendall(b"half")
    theirs.close()
    assert read_on(ours.dup(), memoryview(bytearray(8)), lambda: True) == 4
    assert ours.recv(10) == b""


def test_nothing_is_written_once_nobody_wants_it(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    theirs.sendall(b"late")
    target = bytearray(8)
    assert read_on(ours.dup(), memoryview(target), lambda: False) == 0
    assert not any(target)


def test_zeroes_go_where_they_are_wanted() -> None:
    memory = bytearray(b"x" * 10)
    zero(memoryview(memory)[2:9])
    zero(memoryview(memory)[:0])
    assert memory == b"xx" + bytes(7) + b"x"
