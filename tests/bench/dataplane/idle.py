# SPDX-License-Identifier: Apache-2.0
"""Processors that don't sleep while something is measured.

Each step of a lone request wakes a process on a processor that has nothing to do. How long that
takes is the machine's matter: next to nothing where the processor only looks out for work, 20 to 45
us in a virtual machine that gives it back to its host. A request has four of them.
"""

import contextlib
import struct
from collections.abc import Iterator
from pathlib import Path

REQUEST = Path("/dev/cpu_dma_latency")  # the kernel's PM QoS: asked for while it is open
LATENCY_MICROSECONDS = 0


@contextlib.contextmanager
def processors_awake() -> Iterator[bool]:
    """While the block runs; false where that can't be asked for (only root may, on real hosts)."""
    try:
        request = REQUEST.open("wb", buffering=0)
    except OSError:
        yield False
        return
    with request:
        request.write(struct.pack("i", LATENCY_MICROSECONDS))
        yield True
