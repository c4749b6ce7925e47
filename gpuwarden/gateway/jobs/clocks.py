# SPDX-License-Identifier: Apache-2.0
"""The clocks of the job store."""

import time

from gpuwarden.control.snapshot import boot_id, boottime_nanoseconds

Moment = tuple[float, str, float]  # seconds since 1970, the boot, and seconds of it


def boottime_seconds() -> float:
    """The clock of leases: nobody sets it."""
    return boottime_nanoseconds() / 1e9


def moment() -> Moment:
    """Now."""
    return time.time(), boot_id(), boottime_seconds()
