# SPDX-License-Identifier: Apache-2.0
"""What a moment of this machine's processor is worth now: the measure of promises about CPU.

A second of CPU is no fixed amount of work: a virtual processor's stolen time counts as CPU, and
caches and hyper-threads are shared with whatever else runs.
"""

import os
import sys

# Of CPU, on the idle machine that the promises were first measured on.
START_SECONDS = 0.028


def start_cpu_seconds() -> float:
    """CPU that a bare start of Python takes now: a fixed piece of work."""
    words = [sys.executable, "-I", "-c", "pass"]
    _, status, used = os.wait4(os.posix_spawn(words[0], words, os.environ), 0)
    assert status == 0
    return used.ru_utime + used.ru_stime
