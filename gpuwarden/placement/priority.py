# SPDX-License-Identifier: Apache-2.0
"""Which workers may compute at a real-time priority. Pure: pins and housekeeping CPUs in.

Only those with CPUs of their own. A real-time thread doesn't share: whoever waits on its CPU gets
the twentieth that the kernel keeps for the rest, and that must be nobody but this worker itself.
"""

from collections.abc import Mapping

from gpuwarden.cpulist import format_cpu_list
from gpuwarden.placement.share import Cpus, named
from gpuwarden.priority import NORMAL, parse_priority

# With one, the worker's own loop ran once a second while the GPU thread computed, and every two
# seconds where that was Python code (measured, docs/placement.md): no image would be decoded
# meanwhile, and the card would wait for the next batch.
LEAST_CPUS = 2


def plan_priorities(
    wanted: str, pins: Mapping[int, Cpus], housekeeping: Cpus, notes: list[str]
) -> dict[int, str]:
    """The priority of each worker's GPU thread by number: as wanted, or normal, noted with its why.

    :param pins: the CPUs of each worker by number; empty where it is not pinned.
    """
    if parse_priority(wanted) is None:
        return dict.fromkeys(pins, NORMAL)
    planned: dict[int, str] = {}
    reasons: dict[str, list[int]] = {}
    for number in sorted(pins):
        reason = _obstacle(number, pins, housekeeping)
        planned[number] = NORMAL if reason else wanted
        if reason:
            reasons.setdefault(reason, []).append(number)
    for reason, numbers in reasons.items():
        notes.append(
            f"{named(numbers, 'computes', 'compute')} at normal priority, not at {wanted}: {reason}"
        )
    return planned


def has_own_cpus(number: int, pins: Mapping[int, Cpus], housekeeping: Cpus) -> bool:
    """Whether the worker's CPUs are no other worker's and not the system's.

    A worker without a pin is on every CPU.
    """
    mine = pins[number]
    others = [cpus for other, cpus in pins.items() if other != number]
    shared = any(not cpus or cpus & mine for cpus in others)
    return bool(mine) and mine.isdisjoint(housekeeping) and not shared


def _obstacle(number: int, pins: Mapping[int, Cpus], housekeeping: Cpus) -> str:
    """Why a worker can't have a real-time thread; empty where it can."""
    cpus = pins[number]
    if not cpus:
        return "whoever is not pinned would take CPUs from everybody else"
    if not has_own_cpus(number, pins, housekeeping):
        return f"CPUs {format_cpu_list(cpus)} are not a single worker's own"
    if len(cpus) < LEAST_CPUS:
        return f"CPU {format_cpu_list(cpus)} is its only one, and the rest of it needs one, too"
    return ""
