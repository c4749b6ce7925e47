# SPDX-License-Identifier: Apache-2.0
"""Jobs never fill a disk."""

import pytest

from gpuwarden.gateway.jobs.budget import RESULT_BYTES, DiskBudget, DiskRoom, Held, shortage

BUDGET = DiskBudget(limit_bytes=1000, free_share=0.1)
ROOM = DiskRoom(free_bytes=5000, total_bytes=10000, free_files=100000)


def test_what_fits_is_taken() -> None:
    assert shortage(BUDGET, ROOM, Held(900), wanted_bytes=100) is None


@pytest.mark.parametrize(
    ("room", "held", "text"),
    [
        (ROOM, 901, "disk_limit_bytes"),
        (DiskRoom(1099, 10000, 100000), 0, "10% of the disk"),
        (DiskRoom(5000, 10000, 1000), 0, "1000 files left"),
    ],
)
def test_what_does_not_is_refused_with_the_reason(room: DiskRoom, held: int, text: str) -> None:
    assert text in (shortage(BUDGET, room, Held(held), 100) or "")


def test_a_file_system_that_counts_no_files_lacks_none() -> None:
    assert shortage(BUDGET, DiskRoom(5000, 10000, 0), Held(0), 100) is None


def test_what_goes_for_a_new_file_makes_room_in_the_budget_and_none_on_the_disk_yet() -> None:
    assert shortage(BUDGET, ROOM, Held(1000), wanted_bytes=300, goes_bytes=300) is None
    assert shortage(BUDGET, ROOM, Held(1000), wanted_bytes=301, goes_bytes=300) is not None
    full = DiskRoom(1299, 10000, 100000)
    assert "of the disk" in (shortage(BUDGET, full, Held(1000), 300, goes_bytes=300) or "")


def test_what_is_kept_for_answers_and_for_what_comes_counts_until_it_is_replaced() -> None:
    budget = DiskBudget(RESULT_BYTES + 500, 0.0)
    held = Held(300, unanswered=1, coming_bytes=150, replaced_bytes=50)
    room = DiskRoom(free_bytes=1 << 20, total_bytes=1 << 20, free_files=100000)
    assert shortage(budget, room, held, wanted_bytes=100) is None
    assert "disk_limit_bytes" in (shortage(budget, room, held, wanted_bytes=101) or "")


def test_what_is_promised_is_free_for_nobody_else() -> None:
    room = DiskRoom(free_bytes=1000 + RESULT_BYTES + 600, total_bytes=10000, free_files=100000)
    budget = DiskBudget(1 << 30, free_share=0.1)
    held = Held(0, unanswered=1, coming_bytes=500)
    assert shortage(budget, room, held, wanted_bytes=100) is None
    assert "of the disk" in (shortage(budget, room, held, wanted_bytes=101) or "")
