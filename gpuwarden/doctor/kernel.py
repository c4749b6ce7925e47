# SPDX-License-Identifier: Apache-2.0
"""What the units build upon: IOMMU, control groups, systemd, the clock."""

import ctypes
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gpuwarden.doctor.commands import Answer
from gpuwarden.doctor.findings import Finding, Question
from gpuwarden.doctor.node import Node
from gpuwarden.doctor.places import Absence, Text, folders, unread

CGROUP = "/sys/fs/cgroup/cgroup.controllers"
NEEDED_CONTROLLERS = ("cpu", "cpuset", "memory", "pids")
TRIED_SYSTEMD = 252  # Debian 12's, on which everything is tested
LEAST_SYSTEMD = 249  # has OnSuccess=, by which the guard stops what else would be left behind
NVIDIA = "0x10de"
DISPLAY_CLASSES = ("0x0300", "0x0302")  # VGA and 3D controllers
# systemd's own measure of a synchronised clock (ntp_synced() in src/basic/time-util.c).
LARGEST_CLOCK_ERROR_MICROSECONDS = 16_000_000

# What Docker, Podman and systemd's Container Interface leave in theirs.
CONTAINER_MARKS = ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")
_CONTAINER = "this is a container without its own: ask the host"

# Documentation/ABI/testing/sysfs-kernel-iommu_groups: "DMA" flushes after each transfer, "DMA-FQ"
# now and then, "identity" translates nothing.
_IOMMU = Question(
    "IOMMU",
    "none, or a lazy or no translation for the cards (DMA-FQ, identity)",
    "a strict IOMMU flushes its tables at each transfer between memory and card",
)
_CGROUP = Question(
    "control groups",
    f"version 2 with {', '.join(NEEDED_CONTROLLERS)}",
    "limits, CPUs and the end of a worker with all its children rest on them",
)  # docs/install.md
_SYSTEMD = Question(
    "systemd",
    f"{TRIED_SYSTEMD} or newer, as PID 1",
    "it starts, limits and restarts everything; an older one ignores directives that it has not",
)  # docs/install.md
_CLOCK = Question(
    "clock",
    "synchronised",
    "journal and jobs are dated by it and compared with the PACS; cooling doesn't depend on it",
)


@dataclass(frozen=True, slots=True)
class KernelFacts:
    """IOMMU units, the domain type of each NVIDIA card, control groups, systemd, the clock.

    :ivar units_problem: why systemd does not answer; empty where it does.
    :ivar clock_error_microseconds: the kernel's bound of the error; None where it tells none.
    """

    iommus: int
    domains: Mapping[str, Text]
    controllers: Text
    is_booted: bool
    in_container: bool
    units_problem: str
    systemctl: Answer
    clock_error_microseconds: int | None


def read(node: Node) -> KernelFacts:
    """Raises OSError where the kernel fails to answer."""
    return KernelFacts(
        iommus=len(folders(node.path("/sys/class/iommu"))),
        domains={
            address: node.text(f"/sys/bus/pci/devices/{address}/iommu_group/type")
            for address in _cards(node)
        },
        controllers=node.text(CGROUP),
        is_booted=node.path("/run/systemd/system").is_dir(),
        in_container=any(node.path(path).exists() for path in CONTAINER_MARKS),
        units_problem=node.units_problem,
        systemctl=node.run(["systemctl", "--version"]),
        clock_error_microseconds=clock_error_microseconds(),
    )


def judge(facts: KernelFacts) -> list[Finding]:
    """IOMMU, control groups, systemd, clock."""
    return [
        _iommu(facts),
        _cgroup(facts.controllers, in_container=facts.in_container),
        _systemd(facts),
        _clock(facts.clock_error_microseconds),
    ]


def examine(node: Node) -> list[Finding]:
    """Both at once."""
    return judge(read(node))


def clock_error_microseconds() -> int | None:
    """maxerror of adjtimex(2), which any user may read; None where there is no such call."""
    # struct timex on 64-bit machines: modes (padded), offset, freq, maxerror; 208 bytes in all.
    timex = (ctypes.c_long * 32)()
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(timex)
    except (AttributeError, OSError):
        return None
    return None if state < 0 else int(timex[3])


def _cards(node: Node) -> list[str]:
    """PCI addresses of NVIDIA's cards."""
    return [
        device.name
        for device in folders(node.path("/sys/bus/pci/devices"))
        if _has(node, device.name, "vendor", (NVIDIA,))
        and _has(node, device.name, "class", DISPLAY_CLASSES)
    ]


def _has(node: Node, address: str, name: str, beginnings: Sequence[str]) -> bool:
    text = node.text(f"/sys/bus/pci/devices/{address}/{name}")
    return isinstance(text, str) and text.startswith(tuple(beginnings))


def _iommu(facts: KernelFacts) -> Finding:
    if not facts.iommus:
        return _IOMMU.good("none")
    types = {card: kind for card, kind in facts.domains.items() if isinstance(kind, str)}
    if not facts.domains:
        return _IOMMU.not_applicable("it is on, and there is no NVIDIA card")
    if len(types) < len(facts.domains):
        return _IOMMU.unknown("it is on; how the cards are translated can't be seen")
    found = ", ".join(f"{card}: {kind}" for card, kind in types.items())
    if "DMA" in types.values():
        return _IOMMU.doubtful(found, "boot with iommu.strict=0 (or iommu=pt), then reboot")
    return _IOMMU.good(found)


def _cgroup(controllers: Text, *, in_container: bool) -> Finding:
    if controllers is Absence.MISSING and in_container:
        return _CGROUP.unknown(_CONTAINER)
    if controllers is Absence.MISSING:
        return _CGROUP.wrong(
            "version 1, or none", "boot with systemd.unified_cgroup_hierarchy=1, then reboot"
        )
    if isinstance(controllers, Absence):
        return unread(_CGROUP, controllers, CGROUP)
    missing = [name for name in NEEDED_CONTROLLERS if name not in controllers.split()]
    if missing:
        found = f"version 2 without {', '.join(missing)}"
        return _CGROUP.wrong(found, "boot without cgroup_disable=; in a container: give it those")
    return _CGROUP.good("version 2")


def _systemd(facts: KernelFacts) -> Finding:
    if not facts.is_booted and facts.in_container:
        return _SYSTEMD.unknown(_CONTAINER)
    if not facts.is_booted:
        return _SYSTEMD.wrong("not PID 1", "boot this machine with systemd")
    if facts.units_problem:
        return _SYSTEMD.unknown(facts.units_problem, "systemctl is-system-running")
    return _version(facts.systemctl)


def _version(systemctl: Answer) -> Finding:
    match = re.match(r"systemd (\d{1,5})", systemctl.text)
    if match is None:
        return _SYSTEMD.unknown(systemctl.problem or "systemctl tells no version")
    version = int(match[1])
    if version < LEAST_SYSTEMD:
        return _SYSTEMD.wrong(str(version), "upgrade the distribution (Debian 12 has 252)")
    if version < TRIED_SYSTEMD:
        why = "it has what the units need, but was never tried"
        return _SYSTEMD.doubtful(str(version), "upgrade the distribution (Debian 12 has 252)", why)
    return _SYSTEMD.good(str(version))


def _clock(error_microseconds: int | None) -> Finding:
    if error_microseconds is None:
        return _CLOCK.unknown("the kernel doesn't tell")
    if error_microseconds < LARGEST_CLOCK_ERROR_MICROSECONDS:
        return _CLOCK.good(f"synchronised within {error_microseconds / 1000:.0f} ms")
    return _CLOCK.doubtful(
        "not synchronised", "timedatectl set-ntp true  # with systemd-timesyncd or chrony installed"
    )
