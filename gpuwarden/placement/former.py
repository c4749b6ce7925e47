"""Processes of a worker's former life that no signal ends, as the next one finds them.

systemd kills all of a unit's control group before it restarts it and waits until the group is
empty, but not for ever: a process that hangs in the kernel, in a driver's call say, outlives
TimeoutStopSec=. systemd 252 logs that and starts the unit all the same, in the same group.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

from gpuwarden.topology.cpuset import CGROUP_ROOT

OWN_GROUP = Path("/proc/self/cgroup")
LOOK_AGAIN_SECONDS = 0.1


def former_processes(unit: str, own: Path = OWN_GROUP, root: Path = CGROUP_ROOT) -> list[int]:
    """The other processes of the unit that this process is in; none where it is in another."""
    try:
        group = own.read_text(encoding="utf-8").strip().rpartition("0::")[2]
        if group.rpartition("/")[2] != unit:
            return []
        lines = (root / group.lstrip("/") / "cgroup.procs").read_text(encoding="ascii").split()
    except OSError:
        return []  # nothing to be known here: a system without systemd's groups
    return sorted(int(line) for line in lines if line.isdigit() and int(line) != os.getpid())


def outlasting(find: Callable[[], list[int]], patience_seconds: float) -> list[int]:
    """Those of them that are still there after some patience."""
    until = time.monotonic() + patience_seconds
    while (found := find()) and time.monotonic() < until:
        time.sleep(LOOK_AGAIN_SECONDS)
    return found
