# SPDX-License-Identifier: Apache-2.0
"""The kernel's CPU lists: ``0-3,8,10-11`` to a set and back. Pure."""

import re
from collections.abc import Iterable

CPU_LIMIT = 8192  # CONFIG_NR_CPUS_RANGE_END of the kernel on x86-64
_RANGE = re.compile(r"(?P<first>[0-9]{1,9})(?:-(?P<last>[0-9]{1,9}))?")


class CpuListError(ValueError):
    """A text that is no CPU list; it says which part, and what would be one."""


def parse_cpu_list(text: str) -> frozenset[int]:
    """The CPUs that ``text`` names; none for an empty text.

    :raises CpuListError: a part is no number and no ascending range, or beyond the kernel's CPUs.
    """
    cpus: set[int] = set()
    for part in text.split(",") if text.strip() else ():
        cpus.update(_parse_part(part.strip()))
    return frozenset(cpus)


def parse_disjoint_cpu_list(text: str) -> frozenset[int]:
    """The same for a list that a person wrote, where a CPU named twice is a typing error.

    :raises CpuListError: as :func:`parse_cpu_list`, or a CPU is named twice.
    """
    cpus: set[int] = set()
    for part in text.split(",") if text.strip() else ():
        named = _parse_part(part.strip())
        twice = cpus.intersection(named)
        if twice:
            raise CpuListError(f"CPU {format_cpu_list(twice)} is named twice")
        cpus.update(named)
    return frozenset(cpus)


def _parse_part(part: str) -> range:
    match = _RANGE.fullmatch(part)
    if match is None:
        raise CpuListError(f'"{part}" is neither a CPU number nor a range like 0-3')
    first = int(match["first"])
    last = int(match["last"] or first)
    if last < first:
        raise CpuListError(f'the range "{part}" runs backwards')
    if last >= CPU_LIMIT:
        raise CpuListError(f"CPU {last} is beyond the kernel's {CPU_LIMIT} CPUs")
    return range(first, last + 1)


def format_cpu_list(cpus: Iterable[int]) -> str:
    """The shortest list of ``cpus``, ascending, in the kernel's form."""
    runs: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if runs and cpu == runs[-1][1] + 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(f"{low}" if low == high else f"{low}-{high}" for low, high in runs)
