# SPDX-License-Identifier: Apache-2.0
"""What there is to plan on: the machine, less what cpusets take away from us."""

from collections.abc import Mapping
from pathlib import Path

from gpuwarden import names
from gpuwarden.cpulist import parse_cpu_list
from gpuwarden.placement.plan import Ground
from gpuwarden.systemd.command import SystemctlError, units_properties
from gpuwarden.topology.cpuset import CGROUP_ROOT, bounds_of
from gpuwarden.topology.model import Bounds
from gpuwarden.topology.sysfs import SYSFS, read_topology

ROOT_SLICE = "-.slice"
# From the outside in. The cards' own slices are ours and no bound.
SLICES = (ROOT_SLICE, names.SERVICE_SLICE, names.WORKERS_SLICE)
PROPERTIES = ("ControlGroup", "AllowedCPUs", "AllowedMemoryNodes")


def read_ground(sysfs: Path = SYSFS, cgroups: Path = CGROUP_ROOT) -> tuple[Ground, list[str]]:
    """The ground, and what is doubtful about it.

    :raises OSError: the kernel doesn't say.
    :raises ValueError: what it says can't be read.
    """
    machine = read_topology(sysfs)
    try:
        root, *slices = units_properties(SLICES, PROPERTIES)
    except SystemctlError as error:
        said = str(error).splitlines()[0].rpartition(": ")[2]
        doubt = f"systemd doesn't say what AllowedCPUs= leaves to workers ({said})"
        return Ground(machine, bounds_of("", cgroups)), [doubt]
    host = bounds_of(root.get("ControlGroup", ""), cgroups)
    workers = host
    for properties in slices:
        # A slice that is down has no group yet, only what it will be given.
        group = properties.get("ControlGroup", "")
        in_force = bounds_of(group, cgroups) if group else Bounds()
        workers = in_force.within(given(properties).within(workers))
    return Ground(machine, host, workers), []


def given(properties: Mapping[str, str]) -> Bounds:
    """What a slice's own AllowedCPUs= and AllowedMemoryNodes= leave (systemd writes spaces)."""
    cpus, nodes = (
        parse_cpu_list(properties.get(name, "").replace(" ", ",")) or None
        for name in ("AllowedCPUs", "AllowedMemoryNodes")
    )
    return Bounds(cpus, nodes)
