# SPDX-License-Identifier: Apache-2.0
"""What this process tells systemd about itself: ready, status, watchdog.

A thin wrap of ``sdnotify`` that cures its traps: it encodes Latin-1 and drops the whole datagram,
READY included, when a character has none; it swallows errors. So: ASCII only, READY alone.
"""

import logging
import os

from sdnotify import SystemdNotifier

log = logging.getLogger(__name__)

STATUS_LIMIT_CHARACTERS = 400  # systemctl status prints one line


class Notifier:
    """Speaks to the service manager; silent where there is none (NOTIFY_SOCKET unset)."""

    def __init__(self) -> None:
        self._socket: SystemdNotifier | None = (
            SystemdNotifier(debug=True) if os.environ.get("NOTIFY_SOCKET") else None
        )
        self._failed = False
        self._status = ""

    def ready(self) -> None:
        """Start-up is over."""
        self._send("READY=1")

    def stopping(self) -> None:
        """Shutdown has begun."""
        self._send("STOPPING=1")

    def watchdog(self) -> None:
        """Still alive: to be sent by the loop whose life it proves."""
        self._send("WATCHDOG=1")

    def extend_timeout(self, seconds: float) -> None:
        """Ask for that much more time to start or stop."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def status(self, text: str) -> None:
        """The line that ``systemctl status`` shows; sent only when it changed."""
        line = one_ascii_line(text)
        if line != self._status:
            self._status = line
            self._send(f"STATUS={line}")

    def watchdog_interval_seconds(self) -> float | None:
        """How often to feed the watchdog: half of what the unit allows; None without a watchdog."""
        limit = os.environ.get("WATCHDOG_USEC")
        owner = os.environ.get("WATCHDOG_PID")
        if not limit or (owner and owner != str(os.getpid())):
            return None
        return int(limit) / 2_000_000

    def _send(self, message: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.notify(message)
            self._failed = False
        except OSError as error:
            if not self._failed:
                log.warning("systemd's notify socket refuses messages: %s", error)
            self._failed = True


def one_ascii_line(text: str) -> str:
    """``text`` as one line of ASCII, cut to what a status line can show."""
    flat = " ".join(text.split())
    return flat.encode("ascii", "replace").decode("ascii")[:STATUS_LIMIT_CHARACTERS]
