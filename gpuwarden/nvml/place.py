# SPDX-License-Identifier: Apache-2.0
"""What the driver knows of a card's place: the CPUs near it, and the parts it is divided into.

For the planner alone, which asks in a child: a guard has no use for it.
"""

import os
from collections.abc import Sequence

from gpuwarden.cpulist import CPU_LIMIT, format_cpu_list
from gpuwarden.nvml import calls
from gpuwarden.nvml.calls import Handle
from gpuwarden.nvml.errors import NvmlError

BITS_PER_WORD = 64
SCOPE_NODE = 0  # nvml.h, NVML_AFFINITY_SCOPE_NODE; the socket's scope is wider where it is divided
_MIG_ENABLED = 1


def near_cpus(where: str, handle: Handle) -> str:
    """The CPUs that the driver calls near the card, as a CPU list; empty where it says nothing."""
    words = -(-min(CPU_LIMIT, max(os.cpu_count() or 1, 1024)) // BITS_PER_WORD)
    try:
        mask = calls.call(where, "nvmlDeviceGetCpuAffinityWithinScope", handle, words, SCOPE_NODE)
    except NvmlError:  # before driver 455, or no such answer for this card
        try:
            mask = calls.call(where, "nvmlDeviceGetCpuAffinity", handle, words)
        except NvmlError:
            return ""
    return format_cpu_list(bits_of(mask))


def bits_of(mask: Sequence[int]) -> frozenset[int]:
    """The numbers of the set bits of 64-bit words, the lowest word first."""
    return frozenset(
        position * BITS_PER_WORD + bit
        for position, word in enumerate(mask)
        for bit in range(BITS_PER_WORD)
        if word >> bit & 1
    )


def mig_instances(where: str, handle: Handle) -> tuple[str, ...]:
    """The UUIDs of the card's MIG instances; none where it isn't divided, or can't be."""
    try:
        mode = calls.call(where, "nvmlDeviceGetMigMode", handle)
        if mode[0] != _MIG_ENABLED:
            return ()
        most = int(calls.call(where, "nvmlDeviceGetMaxMigDeviceCount", handle))
    except NvmlError:  # a card that can't be divided
        return ()
    found = []
    for index in range(most):
        try:
            instance = calls.call(where, "nvmlDeviceGetMigDeviceHandleByIndex", handle, index)
            found.append(str(calls.call(where, "nvmlDeviceGetUUID", instance)))
        except NvmlError:  # slots that nobody has made an instance in
            continue
    return tuple(found)
