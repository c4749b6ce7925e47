# SPDX-License-Identifier: Apache-2.0
"""Huge pages, swap and zswap."""

from collections.abc import Sequence
from dataclasses import dataclass

from gpuwarden import names
from gpuwarden.doctor.findings import Finding, Question
from gpuwarden.doctor.node import Node
from gpuwarden.doctor.places import Absence, Text, status_field, unread

THP = "/sys/kernel/mm/transparent_hugepage/enabled"
SWAPS = "/proc/swaps"
ZSWAP = "/sys/module/zswap/parameters/enabled"
# These compute on the CPU and allocate little; any other engine is a model with its torch or vLLM.
BUILT_IN_ENGINES = frozenset({"echo", "imagestats"})
# Reserved and unused, so lost to everybody else: a tenth is more than a PACS's cache would miss.
LARGE_RESERVE = 0.1

# Article 4: with "never", failed allocations above 15 concurrent requests fell from 37 to 0.2 %.
# With "madvise" only a program that asks gets them; torch does not by itself (its
# THP_MEM_ALLOC_ENABLE is off by default). Documentation/admin-guide/mm/transhuge.rst.
_THP = Question(
    "transparent huge pages",
    "never or madvise",
    "under load the kernel stops a model's allocations to make huge pages, and some fail",
)
_NEVER = f"echo never > {THP}  # for good: transparent_hugepage=never at boot, or tuned"
# Documentation/admin-guide/mm/hugetlbpage.rst: reserved pages serve nothing else.
_RESERVED = Question(
    "reserved huge pages",
    f"none, or used but for less than {LARGE_RESERVE:.0%} of the memory",
    "memory in vm.nr_hugepages is lost to models and file cache until a program asks for it",
)
# design, "Patients' data": MemorySwapMax=0 on gateway and workers.
_SWAP = Question(
    "swap",
    "none, or kept away from workers and gateway (MemorySwapMax=0)",
    "patients' images must not come to lie on a disk, and a model on a disk answers nobody in time",
)
# Article 4 swaps into compressed memory (zswap), for what else runs on the host.
_ZSWAP = Question(
    "zswap",
    "on where there is a swap disk",
    "what the rest of the host swaps would else go to the disk that the jobs need",
)


@dataclass(frozen=True, slots=True)
class MemoryFacts:
    """Files of the kernel, and what the service's groups may swap.

    :ivar engine: the workers' engine; empty where the configuration is unknown.
    :ivar swap_limits: memory.swap.max of each running unit of ours that holds patients' data.
    """

    engine: str
    thp: Text
    meminfo: Text
    swaps: Text
    zswap: Text
    swap_limits: Sequence[tuple[str, Text]]


def read(node: Node) -> MemoryFacts:
    """Raises OSError where the kernel fails to answer."""
    units = [names.GATEWAY_UNIT]
    units += [names.worker_unit(each.number) for each in node.plan.workers] if node.plan else []
    return MemoryFacts(
        engine=node.configuration.workers.engine if node.configuration else "",
        thp=node.text(THP),
        meminfo=node.text("/proc/meminfo"),
        swaps=node.text(SWAPS),
        zswap=node.text(ZSWAP),
        swap_limits=[
            (name, node.text(f"/sys/fs/cgroup{unit.control_group}/memory.swap.max"))
            for name in units
            if (unit := node.units.get(name)) and unit.control_group
        ],
    )


def judge(facts: MemoryFacts) -> list[Finding]:
    """Transparent and reserved huge pages, swap, zswap."""
    return [_thp(facts), _reserved(facts), _swap(facts), _zswap(facts)]


def examine(node: Node) -> list[Finding]:
    """Both at once."""
    return judge(read(node))


def chosen(text: str) -> str:
    """The word in brackets of ``always [madvise] never``; the whole text where none is."""
    _, bracket, rest = text.partition("[")
    return rest.partition("]")[0] if bracket else text


def _thp(facts: MemoryFacts) -> Finding:
    if facts.thp is Absence.MISSING:
        return _THP.not_applicable("this kernel has none")
    if isinstance(facts.thp, Absence):
        return unread(_THP, facts.thp, THP)
    found = chosen(facts.thp)
    if found != "always":
        return _THP.good(found)
    if facts.engine in BUILT_IN_ENGINES:
        why = f"it costs nothing with the engine {facts.engine}; a model with torch or vLLM suffers"
        return _THP.doubtful(found, _NEVER, why)
    if not facts.engine:
        return _THP.doubtful(found, _NEVER)
    return _THP.wrong(found, _NEVER)


def _reserved(facts: MemoryFacts) -> Finding:
    if isinstance(facts.meminfo, Absence):
        return unread(_RESERVED, facts.meminfo, "/proc/meminfo")
    total = _number(facts.meminfo, "HugePages_Total")
    free = _number(facts.meminfo, "HugePages_Free") - _number(facts.meminfo, "HugePages_Rsvd")
    page_kibibytes = _number(facts.meminfo, "Hugepagesize")
    memory_kibibytes = _number(facts.meminfo, "MemTotal")
    if not total:
        return _RESERVED.good("none")
    found = f"{total} of {page_kibibytes} KiB, {free} of them unused"
    if free * page_kibibytes > LARGE_RESERVE * memory_kibibytes:
        return _RESERVED.doubtful(
            found, "sysctl -w vm.nr_hugepages=0  # unless a program needs them"
        )
    return _RESERVED.good(found)


def _swap(facts: MemoryFacts) -> Finding:
    if isinstance(facts.swaps, Absence):
        return unread(_SWAP, facts.swaps, SWAPS)
    devices = _swap_devices(facts.swaps)
    if not devices:
        return _SWAP.good("none")
    where = ", ".join(devices)
    open_units = [name for name, limit in facts.swap_limits if limit != "0"]
    unread_units = [name for name, limit in facts.swap_limits if isinstance(limit, Absence)]
    if unread_units:
        found = f"{where}; whether {', '.join(unread_units)} may use it can't be seen"
        return _SWAP.unknown(found, f"systemctl show -P MemorySwapMax {unread_units[0]}")
    if open_units:
        found = f"{where}, and {', '.join(open_units)} may use it"
        mend = f"swapoff -a  # which drop-in lets it: systemctl cat {open_units[0]}"
        return _SWAP.wrong(found, mend)
    if not facts.swap_limits:
        return _SWAP.good(f"{where}; workers will be kept away from it")
    return _SWAP.good(f"{where}; workers and gateway are kept away from it")


def _zswap(facts: MemoryFacts) -> Finding:
    devices = [] if isinstance(facts.swaps, Absence) else _swap_devices(facts.swaps)
    disks = [device for device in devices if "/zram" not in device]
    if not disks:
        return _ZSWAP.not_applicable("no swap on a disk")
    if facts.zswap is Absence.MISSING:
        return _ZSWAP.not_applicable("this kernel has none")
    if isinstance(facts.zswap, Absence):
        return unread(_ZSWAP, facts.zswap, ZSWAP)
    if facts.zswap == "Y":
        return _ZSWAP.good("on")
    return _ZSWAP.doubtful("off", f"echo Y > {ZSWAP}")


def _swap_devices(swaps: str) -> list[str]:
    """The first column of /proc/swaps, without its header."""
    return [line.split()[0] for line in swaps.splitlines()[1:] if line.split()]


def _number(meminfo: str, name: str) -> int:
    word = status_field(meminfo, name).partition(" ")[0]
    return int(word) if word.isascii() and word.isdigit() else 0
