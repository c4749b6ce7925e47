# SPDX-License-Identifier: Apache-2.0
"""Threads that read large bodies."""

import select
import socket
import threading
from collections.abc import Iterator

import pytest

from gpuwarden.gateway import hands
from gpuwarden.gateway.hands import read_on, zero

MIB = 1 << 20


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


def woken_for_a_byte(connection: socket.socket) -> bool:
    return connection.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1


def test_a_body_is_read_to_its_end(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    body = bytes(range(256)) * (8 * MIB // 256)
    target = bytearray(len(body))
    sending = threading.Thread(target=theirs.sendall, args=(body + b"more",))
    sending.start()
    assert read_on(ours.dup(), memoryview(target), lambda: True) == len(body)
    sending.join()
    assert target == body
    assert woken_for_a_byte(ours)
    assert ours.recv(10) == b"more"


def test_a_sender_that_pauses_is_given_back(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    theirs.sendall(b"half")
    target = bytearray(8)
    assert read_on(ours.dup(), memoryview(target), lambda: True) == 4
    assert target == b"half\0\0\0\0"
    # Whoever waits for it now is woken for each byte again.
    assert woken_for_a_byte(ours)
    theirs.sendall(b"!")
    assert select.select([ours], [], [], 5)[0]


def test_a_short_end_needs_no_patience(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hands, "PATIENCE_MILLISECONDS", 5000)
    ours, theirs = pair
    target = bytearray(hands.LEAST_BYTES + 100)
    theirs.sendall(bytes(hands.LEAST_BYTES))
    sending = threading.Timer(0.2, theirs.sendall, args=(b"e" * 100,))
    sending.start()
    assert read_on(ours.dup(), memoryview(target), lambda: True) == len(target)
    sending.join()
    assert target.endswith(b"e" * 100)


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
