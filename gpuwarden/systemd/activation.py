# SPDX-License-Identifier: Apache-2.0
"""Sockets that systemd opened for this process (sd_listen_fds)."""

import os
import socket

FIRST_DESCRIPTOR = 3  # sd_listen_fds(3): SD_LISTEN_FDS_START


def take_sockets() -> dict[str, list[socket.socket]]:
    """The listening sockets handed over by the service manager, by ``FileDescriptorName=``.

    Takes them once: the environment that names them is cleared, so that no child believes they
    are its own. Empty where none was handed over.
    """
    owner = os.environ.pop("LISTEN_PID", "")
    count = int(os.environ.pop("LISTEN_FDS", "0"))
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    sockets: dict[str, list[socket.socket]] = {}
    if owner != str(os.getpid()):
        return sockets
    for offset in range(count):
        descriptor = FIRST_DESCRIPTOR + offset
        os.set_inheritable(descriptor, False)
        name = names[offset] if offset < len(names) else "unknown"
        sockets.setdefault(name, []).append(socket.socket(fileno=descriptor))
    return sockets
