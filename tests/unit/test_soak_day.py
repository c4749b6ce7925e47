# SPDX-License-Identifier: Apache-2.0
"""What the campaign ``day`` calls flat."""

from tests.soak.day.campaign import Day, rise_kib
from tests.soak.day.program import Look

KINDS = {"predict": 9, "stream": 9, "hang_up": 9, "job": 9}


def looks(
    name: str = "gateway", kib_an_hour: float = 0.0, descriptors: int = 20, threads: int = 4
) -> list[Look]:
    """A look an hour; what isn't flat is so from noon on."""
    return [
        Look(
            hour,
            name,
            1 if name != "worker 1" or hour < 6 else 2,
            descriptors if hour >= 12 else 20,
            threads if hour >= 12 else 4,
            40_000 + round(kib_an_hour * hour),
        )
        for hour in range(24)
    ]


def faults(*of: list[Look]) -> list[str]:
    day = Day("day", looks=[look for one in of for look in one], ended=KINDS)
    day.judge()
    return day.faults


def test_what_stays_as_it_is_is_flat() -> None:
    assert faults(looks(), looks("worker 1")) == []


def test_what_rises_by_its_line_is_told() -> None:
    assert faults(looks(kib_an_hour=300.0), looks("worker 1")) == ["gateway grew by 5400 KiB"]


def test_a_look_at_a_busy_moment_is_no_leak() -> None:
    many = [look if look.hour != 23 else Look(23, "gateway", 1, 22, 4, 44_000) for look in looks()]
    assert rise_kib(many) < 1500
    assert faults(many, looks("worker 1")) == []


def test_descriptors_and_threads_that_are_left_are_told() -> None:
    assert faults(looks(descriptors=30, threads=9), looks("worker 1")) == [
        "gateway has 30 descriptors",
        "gateway has 9 threads",
    ]


def test_who_died_and_who_was_never_recycled_is_told() -> None:
    assert faults(looks("worker 0"), looks("worker 1")[:6]) == ["worker 1 was never recycled"]
    died = [
        look if look.hour < 9 else Look(look.hour, "guard", 7, 20, 4, 1) for look in looks("guard")
    ]
    assert faults(died, looks("worker 1")) == ["guard did not live all day"]
