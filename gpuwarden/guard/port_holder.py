# SPDX-License-Identifier: Apache-2.0
"""Names who listens where the front door should; run by ``OnFailure=`` of its socket."""

import logging
from pathlib import Path

import psutil

from gpuwarden.control.host import PortHolder
from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.guard.node import front_door
from gpuwarden.names import GATEWAY_SOCKET_UNIT, PORT_HOLDER_FILE
from gpuwarden.systemd.events import Event, tell
from gpuwarden.systemd.journal import set_up_logging

VALID_MILLISECONDS = 60_000  # the guard tries the socket again, and with it this, every 10 s


def main(argv: list[str]) -> int:
    """Find the holder of the socket unit's port, publish it and write it to the journal."""
    set_up_logging("info")
    for door in front_door():
        holder = find_holder(door.port)
        if holder is None:
            continue
        SnapshotWriter(PORT_HOLDER_FILE, "port-holder", VALID_MILLISECONDS).publish(holder)
        tell(
            Event.PORT_TAKEN,
            f"{holder.address} is held by {holder.command} (PID {holder.pid}, {holder.unit})",
            logging.ERROR,
            REASON=f"held by PID {holder.pid}",
        )
        return 0
    PORT_HOLDER_FILE.unlink(missing_ok=True)
    logging.getLogger(__name__).error("nobody listens on the port of %s now", GATEWAY_SOCKET_UNIT)
    return 0


def find_holder(port: int) -> PortHolder | None:
    """The process that listens on a TCP port; None where none does or it can't be seen."""
    for connection in psutil.net_connections(kind="tcp"):
        listens = connection.status == psutil.CONN_LISTEN and connection.pid is not None
        if not listens or not connection.laddr or connection.laddr.port != port:
            continue
        try:
            command = psutil.Process(connection.pid).name()
            groups = Path(f"/proc/{connection.pid}/cgroup").read_text(encoding="utf-8")
        except (psutil.NoSuchProcess, FileNotFoundError):
            continue  # it ended while we looked
        address = f"{connection.laddr.ip}:{port}"
        unit = groups.strip().rsplit("/", 1)[-1] or "no unit"
        return PortHolder(address=address, pid=connection.pid, command=command, unit=unit)
    return None
