# SPDX-License-Identifier: Apache-2.0
"""What a control group's cpuset leaves, as the kernel has it in force (cgroup version 2)."""

from pathlib import Path, PurePosixPath

from gpuwarden.cpulist import parse_cpu_list
from gpuwarden.topology.model import Bounds

CGROUP_ROOT = Path("/sys/fs/cgroup")


def bounds_of(control_group: str, root: Path = CGROUP_ROOT) -> Bounds:
    """The CPUs and memory nodes that ``control_group`` may use.

    A group has no cpuset of its own where its parent doesn't hand the controller down: then its
    parent's is in force, and so on up the tree. A container sees its own part of the tree alone.

    :param control_group: as systemd names it: ``/medgemma.slice``, empty for the top.
    :raises CpuListError: the kernel's list can't be read.
    """
    return Bounds(
        _effective(control_group, "cpuset.cpus.effective", root),
        _effective(control_group, "cpuset.mems.effective", root),
    )


def _effective(control_group: str, name: str, root: Path) -> frozenset[int] | None:
    group = PurePosixPath("/", control_group.lstrip("/"))
    for folder in (group, *group.parents):
        try:
            text = (root / str(folder).lstrip("/") / name).read_text(encoding="ascii")
        except (FileNotFoundError, NotADirectoryError):
            continue
        return parse_cpu_list(text) or None
    return None
