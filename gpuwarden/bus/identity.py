# SPDX-License-Identifier: Apache-2.0
"""Who a sender is, by the word of the bus daemon and of the kernel."""

from dataclasses import dataclass
from pathlib import Path

from gpuwarden.bus.bus import Bus
from gpuwarden.bus.errors import AccessDenied, BusError
from gpuwarden.bus.signals import DAEMON, DAEMON_PATH

PROC = Path("/proc")
ASK_SECONDS = 5.0  # the bus daemon answers in microseconds; a later answer finds nobody waiting


@dataclass(frozen=True, slots=True)
class Identity:
    """A sender: its user, its process (0: unknown) and the unit that holds it (empty: unknown).

    The user is certain. Process and unit are for the journal alone: a process may be gone, and its
    number another's, by the time it is looked up.
    """

    uid: int
    pid: int = 0
    unit: str = ""

    def __str__(self) -> str:
        return f"uid {self.uid}" + (f" ({self.unit})" if self.unit else "")


async def identify(bus: Bus, sender: str, proc: Path = PROC) -> Identity:
    """Who ``sender``, a unique bus name, is.

    :raises AccessDenied: the bus doesn't say: the sender has left, or its user is hidden.
    """
    try:
        (credentials,) = await bus.call(
            DAEMON, DAEMON_PATH, DAEMON, "GetConnectionCredentials", "s", [sender], ASK_SECONDS
        )
    except BusError as error:
        raise AccessDenied(f"the bus can't say who {sender} is: {error}") from error
    uid, pid = credentials.get("UnixUserID"), credentials.get("ProcessID", 0)
    if not isinstance(uid, int):
        raise AccessDenied(f"the bus can't say which user {sender} is")
    return Identity(uid, pid, unit_of(pid, proc))


def unit_of(pid: int, proc: Path = PROC) -> str:
    """The service or scope whose control group holds a process; empty where none is seen."""
    try:
        groups = (proc / str(pid) / "cgroup").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""  # it has ended
    names = [name for line in groups.splitlines() for name in line.split("/")]
    units = [name for name in names if name.endswith((".service", ".scope"))]
    return units[-1] if units else ""
