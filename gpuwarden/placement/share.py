# SPDX-License-Identifier: Apache-2.0
"""The CPUs of one NUMA node, dealt out to its workers. Pure."""

from collections.abc import Iterable, Sequence

from gpuwarden.cpulist import format_cpu_list

Cpus = frozenset[int]


def deal(
    node: int,
    cores: Sequence[Cpus],
    numbers: Sequence[int],
    cpus_per_worker: int,
    warnings: list[str],
) -> dict[int, Cpus]:
    """The node's cores, whole and side by side, in fair shares; all to all where they are too few.

    :param cores: at least one.
    :param numbers: the workers.
    :param cpus_per_worker: no worker gets more whole cores than give so many CPUs; 0: no limit.
    """
    if len(cores) < len(numbers):
        together = frozenset().union(*cores)
        free = "1 free core" if len(cores) == 1 else f"{len(cores)} free cores"
        warnings.append(
            f"NUMA node {node} has {free} for {len(numbers)} workers: "
            f"they share CPUs {format_cpu_list(together)}"
        )
        return dict.fromkeys(numbers, together)
    least, over = divmod(len(cores), len(numbers))
    shares: dict[int, Cpus] = {}
    start = 0
    for position, number in enumerate(sorted(numbers)):
        size = least + (position < over)
        shares[number] = _limited(cores[start : start + size], cpus_per_worker, number, warnings)
        start += size
    return shares


def named(numbers: Iterable[int], one: str = "is", several: str = "are") -> str:
    """``worker 3 is``, ``workers 0, 1 are``, or with another verb."""
    ordered = sorted(numbers)
    words = ", ".join(map(str, ordered))
    return f"worker {words} {one}" if len(ordered) == 1 else f"workers {words} {several}"


def _limited(cores: Sequence[Cpus], cpus_per_worker: int, number: int, warnings: list[str]) -> Cpus:
    """As many whole cores as give ``cpus_per_worker``, at most those that are this worker's."""
    taken: set[int] = set()
    for core in cores:
        if cpus_per_worker and len(taken) >= cpus_per_worker:
            break
        taken |= core
    if len(taken) < cpus_per_worker:
        warnings.append(
            f"worker {number} gets {len(taken)} CPUs, its fair share, "
            f"not the {cpus_per_worker} of cpus_per_worker"
        )
    return frozenset(taken)
