# SPDX-License-Identifier: Apache-2.0
"""Jobs never fill a disk."""

import pytest

from gpuwarden.gateway.jobs.budget import DiskBudget, DiskRoom, shortage

BUDGET = DiskBudget(limit_bytes=1000, free_share=0.1)
ROOM = DiskRoom(free_bytes=5000, total_bytes=10000, free_files=100000)


def test_what_fits_is_taken() -> None:
    assert shortage(BUDGET, ROOM, held_bytes=900, wanted_bytes=100) is None


@pytest.mark.parametrize(
    ("room", "held", "text"),
    [
        (ROOM, 901, "disk_limit_bytes"),
        (DiskRoom(1099, 10000, 100000), 0, "10% of the disk"),
        (DiskRoom(5000, 10000, 1000), 0, "1000 files left"),
    ],
)
def test_what_does_not_is_refused_with_the_reason(room: DiskRoom, held: int, text: str) -> None:
    assert text in (shortage(BUDGET, room, held, 100) or "")


def test_a_file_system_that_counts_no_files_lacks_none() -> None:
    assert shortage(BUDGET, DiskRoom(5000, 10000, 0), 0, 100) is None
