# SPDX-License-Identifier: Apache-2.0
"""Which workers run now, and since when: asked of the kernel's groups and of systemd."""

from pathlib import Path

from gpuwarden import names
from gpuwarden.placement.gentle import Alive
from gpuwarden.systemd.command import units_properties
from gpuwarden.topology.cpuset import CGROUP_ROOT

WORKERS_GROUP = Path(names.SERVICE_SLICE, names.WORKERS_SLICE)
STARTED = "ExecMainStartTimestampMonotonic"
_PREFIX, _SUFFIX = names.worker_unit(0).split("0")


def read_alive(cgroups: Path = CGROUP_ROOT) -> Alive:
    """Running workers and slices with processes in them.

    :raises SystemctlError: systemd doesn't say since when they run.
    :raises OSError: the kernel doesn't say what runs.
    """
    slices = [each for each in (cgroups / WORKERS_GROUP).glob("*.slice") if _is_populated(each)]
    numbers = sorted(number for folder in slices for number in running_workers(folder))
    if not numbers:
        return Alive({}, frozenset(folder.name for folder in slices))
    told = units_properties([names.worker_unit(number) for number in numbers], [STARTED])
    since = {n: int(each.get(STARTED) or 0) for n, each in zip(numbers, told, strict=True)}
    return Alive(since, frozenset(folder.name for folder in slices))


def running_workers(slice_group: Path) -> list[int]:
    """The numbers of the workers that have processes in a slice."""
    return [
        int(number)
        for folder in slice_group.glob(f"{_PREFIX}*{_SUFFIX}")
        if (number := folder.name.removeprefix(_PREFIX).removesuffix(_SUFFIX)).isdigit()
        and _is_populated(folder)
    ]


def _is_populated(group: Path) -> bool:
    try:
        return "populated 1" in (group / "cgroup.events").read_text(encoding="ascii")
    except FileNotFoundError:  # gone meanwhile
        return False
