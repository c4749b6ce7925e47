"""Whether a former process of our own unit is still in the driver's hands.

A process in an uninterruptible sleep outlives SIGKILL. It stays in the unit's cgroup, and systemd
starts the next one beside it; each that asks the driver as well would be one more of them.
"""

import os
from pathlib import Path

OWN_GROUP_FILE = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")


def former_processes(group_file: Path = OWN_GROUP_FILE, groups: Path = GROUPS) -> list[int]:
    """The other processes of our own unit's cgroup; none where there is no such group.

    A unit has one cgroup and this service has one process, so any other is a former one.
    """
    try:
        own = group_file.read_text(encoding="ascii").strip()
        listed = (groups / own.removeprefix("0::").lstrip("/") / "cgroup.procs").read_text()
    except OSError:
        return []
    if not own.endswith(".service"):
        return []  # started by hand, in somebody's session
    return [int(pid) for pid in listed.split() if int(pid) != os.getpid()]
