# SPDX-License-Identifier: Apache-2.0
"""The journal's native protocol: messages with fields, so that ops tooling needs no parsing.

Where there is no journal (tests, a terminal) messages go to standard error instead.
"""

import logging
import os
import socket
import sys
from pathlib import Path

SYSLOG_IDENTIFIER = "gpuwarden"
JOURNAL_SOCKET = Path("/run/systemd/journal/socket")
PRIORITIES = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}


class JournalHandler(logging.Handler):
    """Sends each record to the journal with ``fields`` given in ``extra={"fields": {...}}``."""

    def __init__(self, path: Path = JOURNAL_SOCKET) -> None:
        super().__init__()
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record; a journal that doesn't take it gets it on standard error."""
        text = self.format(record)
        fields = {
            "MESSAGE": text,
            "PRIORITY": str(PRIORITIES.get(record.levelno, 6)),
            "SYSLOG_IDENTIFIER": SYSLOG_IDENTIFIER,
            "CODE_MODULE": record.name,
            **getattr(record, "fields", {}),
        }
        try:
            self._socket.sendto(encode(fields), self._path)
        except OSError:
            print(text, file=sys.stderr)


def encode(fields: dict[str, str]) -> bytes:
    """Fields in the journal's native form: values of several lines carry their length."""
    parts: list[bytes] = []
    for name, value in fields.items():
        data = str(value).encode("utf-8", "replace")
        if b"\n" in data:
            parts.append(name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n")
        else:
            parts.append(name.encode() + b"=" + data + b"\n")
    return b"".join(parts)


def set_up_logging(level: str) -> None:
    """Route this process's logging to the journal, or to standard error without one.

    :param level: ``debug``, ``info``, ``warning`` or ``error``.
    """
    handler: logging.Handler
    if os.environ.get("JOURNAL_STREAM") and JOURNAL_SOCKET.exists():
        handler = JournalHandler()
    else:
        handler = logging.StreamHandler()
    logging.basicConfig(level=level.upper(), handlers=[handler], format="%(message)s", force=True)
