# SPDX-License-Identifier: Apache-2.0
"""Processes of a unit's former life that no signal ends, as the next one finds them.

systemd kills all of a unit's control group before it restarts it and waits until the group is
empty, but not for ever: a process that hangs in the kernel, in a driver's call say, outlives
TimeoutStopSec=. systemd 252 logs that and starts the unit all the same, in the same group. Each
that asks the driver as well would be one more that hangs.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

OWN_GROUP_FILE = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")
LOOK_AGAIN_SECONDS = 0.1


def former_processes(
    unit: str = "", group_file: Path = OWN_GROUP_FILE, groups: Path = GROUPS
) -> list[int]:
    """The other processes of the service that this process is in.

    A service of ours has one cgroup and begins as one process, so any other is a former one.

    :param unit: the service that it should be in; empty: whichever.
    :returns: none where it is in no service, or in another one, and without systemd's groups.
    """
    try:
        group = group_file.read_text(encoding="utf-8").strip().removeprefix("0::").lstrip("/")
        listed = (groups / group / "cgroup.procs").read_text(encoding="ascii").split()
    except OSError:
        return []
    own = group.rpartition("/")[2]
    if own != (unit or own) or not own.endswith(".service"):
        return []  # started by hand, in somebody's session
    return sorted(int(pid) for pid in listed if int(pid) != os.getpid())


def outlasting(find: Callable[[], list[int]], patience_seconds: float) -> list[int]:
    """Those of them that are still there after some patience."""
    until = time.monotonic() + patience_seconds
    while (found := find()) and time.monotonic() < until:
        time.sleep(LOOK_AGAIN_SECONDS)
    return found
