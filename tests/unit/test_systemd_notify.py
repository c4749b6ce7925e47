# SPDX-License-Identifier: Apache-2.0
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuwarden.systemd.journal import JournalHandler, encode
from gpuwarden.systemd.notify import Notifier, one_ascii_line


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield receiver


def test_ready_travels_alone_and_a_status_with_odd_characters_arrives(
    manager: socket.socket,
) -> None:
    notifier = Notifier()
    notifier.status("GPU 0 71 °C → alert\nsecond line")
    notifier.ready()
    assert manager.recv(4096) == b"STATUS=GPU 0 71 ?C ? alert second line"
    assert manager.recv(4096) == b"READY=1"


def test_a_status_is_sent_once_until_it_changes(manager: socket.socket) -> None:
    notifier = Notifier()
    for text in ("a", "a", "b"):
        notifier.status(text)
    notifier.watchdog()
    received = [manager.recv(4096) for _ in range(3)]
    assert received == [b"STATUS=a", b"STATUS=b", b"WATCHDOG=1"]


def test_a_full_notify_socket_is_said_once_and_breaks_nothing(
    manager: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = Notifier()
    manager.close()
    notifier.watchdog()
    notifier.watchdog()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_long_status_is_cut() -> None:
    assert len(one_ascii_line("x" * 5000)) == 400


@pytest.mark.parametrize(
    ("environment", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "10000000"}, 5.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid())}, 5.0),
    ],
)
def test_the_watchdog_is_fed_at_half_its_limit(
    environment: dict[str, str], interval: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Notifier().watchdog_interval_seconds() == interval


def test_fields_of_several_lines_carry_their_length() -> None:
    assert encode({"MESSAGE": "one", "REASON": "a\nb"}) == (
        b"MESSAGE=one\nREASON\n\x03\x00\x00\x00\x00\x00\x00\x00a\nb\n"
    )


def test_a_record_reaches_the_journal_with_its_fields(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        journal.settimeout(5)
        logger = logging.getLogger("test.journal")
        logger.setLevel(logging.INFO)
        handler = JournalHandler(tmp_path / "journal")
        logger.addHandler(handler)
        logger.warning("card %d is hot", 0, extra={"fields": {"GPU": "0"}})
        logger.removeHandler(handler)
        lines = journal.recv(4096).decode().splitlines()
    assert "MESSAGE=card 0 is hot" in lines
    assert "PRIORITY=4" in lines
    assert "GPU=0" in lines
