# SPDX-License-Identifier: Apache-2.0
"""Overrides and releases for tests."""

from typing import Literal

from gpuwarden.control.lease import Lease
from gpuwarden.control.snapshot import boot_id, boottime_nanoseconds

UNTIL_UNIX_MICROSECONDS = 1_790_000_000_000_000  # 2026-09-21 14:13:20 UTC
UNTIL = "2026-09-21 14:13:20 UTC"


def lease(
    state: Literal["alert", "critical", "released"],
    seconds: float = 3600.0,
    boot: str | None = None,
) -> Lease:
    """One of this boot that runs for so long from now."""
    return Lease(
        boot_id=boot or boot_id(),
        uuid="GPU-1",
        state=state,
        until_boottime_nanoseconds=boottime_nanoseconds() + int(seconds * 1e9),
        until_unix_microseconds=UNTIL_UNIX_MICROSECONDS,
    )
