# SPDX-License-Identifier: Apache-2.0
"""The memory that a CPU process may take for one image, whatever the image turns out to be."""

import resource
from pathlib import Path

from gpuwarden.worker.faults import Failure, location

STATUS_FILE = Path("/proc/self/status")


def limit_memory(limit_bytes: int) -> None:
    """Let this process take so much more than it has now; then its decoders get MemoryError.

    Counted is what it allocates, not what it maps of request bodies.
    """
    held_bytes = data_bytes(STATUS_FILE.read_text())
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = held_bytes + limit_bytes
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))


def data_bytes(status: str) -> int:
    """What the kernel counts against that limit, from a process's status file."""
    for line in status.splitlines():
        name, _, value = line.partition(":")
        if name == "VmData":
            return int(value.split()[0]) * 1024
    raise ValueError(f"{STATUS_FILE} has no VmData")


def too_much_memory(error: MemoryError) -> Failure:
    """The failure of a request whose image needs more."""
    text = (
        "the image needs more memory to be decoded than is given to one"
        " ([workers] preprocess_memory_bytes)"
    )
    return Failure("bad_image", text, location(error), "image")
