# SPDX-License-Identifier: Apache-2.0
# What the campaign of random kills calls a fault, and what it doesn't.

import http.client
import json
import subprocess
import sys
from typing import Any

import pytest

from tests.soak.random_kills.campaign import (
    GROWTH_KIB,
    RandomKills,
    allowed_seconds,
    faults_of_growth,
    growth_of,
    judge_round,
)
from tests.soak.random_kills.load import FrontDoor, Image, Load, Question
from tests.soak.random_kills.processes import held

PASS_SECONDS = 0.1


def a_round(**changes: Any) -> dict[str, Any]:
    told = {
        "parts": ["worker"],
        "strikes": ["SIGKILL of medgemma-worker@0.service (7)"],
        "took_seconds": 3.0,
        "pass_seconds": PASS_SECONDS,
        "in_flight": 1,
        "fault": "",
        "spared": True,
        "held": {"guard": (1, 10, 24_000), "gateway": (2, 20, 31_000)},
        "memfds": 3,
        "memfd_bytes": 3 << 20,
        "shared_kib": 4000,
    }
    return {**told, **changes}


def test_5_s_are_2_and_a_half_and_125_times_a_python() -> None:
    assert allowed_seconds(a_round()) == 2.5 + 125 * PASS_SECONDS
    assert allowed_seconds(a_round(pass_seconds=0.02)) == 5.0  # what a slow server takes


def test_who_is_back_in_time_is_no_fault_and_who_is_late_or_missing_is() -> None:
    figures = RandomKills("kills")
    judge_round(figures, a_round(took_seconds=14.9))
    assert figures.faults == []
    judge_round(figures, a_round(took_seconds=15.1))
    judge_round(figures, a_round(fault="card 0 is held by []", parts=["worker", "bus"]))
    late, missing = figures.faults
    assert figures.late == [late]
    assert late.startswith("15.1 s, 151 times python3 -c pass")
    assert missing.startswith("card 0 is held by [] after SIGKILL of medgemma-worker@0")
    assert figures.done == 4


def grown(kib_per_round: float, descriptors: int = 0, rounds: int = 20) -> list[dict[str, Any]]:
    return [
        a_round(
            held={
                "guard": (1, 10 + descriptors * n // rounds, round(24_000 + kib_per_round * n)),
                "gateway": (2, 20, 31_000),
            }
        )
        for n in range(rounds)
    ]


def test_what_grows_is_told_by_the_line_through_all_rounds() -> None:
    assert faults_of_growth(grown(0)) == []
    growth = growth_of(grown(7), "guard")
    assert growth is not None
    assert growth.kib_per_round == pytest.approx(7)
    (told,) = faults_of_growth(grown(GROWTH_KIB / 10))
    assert told.startswith("the guard grew by")
    (told,) = faults_of_growth(grown(0, descriptors=5))
    assert told.startswith("the guard's descriptors grew")


def test_of_a_few_looks_only_descriptors_are_judged() -> None:
    assert faults_of_growth(grown(GROWTH_KIB, rounds=3)) == []
    assert len(faults_of_growth(grown(0, descriptors=9, rounds=3))) == 1


def test_what_a_young_process_fills_is_no_growth() -> None:
    young = grown(400, rounds=10)
    old = [a_round(held={**each["held"], "guard": (1, 10, 28_000)}) for each in grown(0)]
    assert faults_of_growth(young + old) == []
    growth = growth_of(young + old, "guard")
    assert growth is not None
    assert growth.kib == (24_000, 28_000, 28_000)


def test_a_part_that_was_spared_and_died_is_a_fault() -> None:
    rounds = [a_round(), a_round(held={"guard": (9, 10, 24_000), "gateway": (2, 20, 31_000)})]
    (told,) = faults_of_growth(rounds)
    assert told == "the guard was spared and yet there were 2 of it"


def test_shared_memory_that_nobody_gives_back_is_a_fault() -> None:
    (told,) = faults_of_growth([a_round(), a_round(shared_kib=40_000)])
    assert told == "36000 KiB of shared memory were left"


def test_only_the_death_of_a_gateway_excuses_a_connection_that_ends() -> None:
    door = FrontDoor()
    before = door.deaths
    assert not door.excuses(before)
    with door.dying():
        during = door.deaths
    assert door.excuses(before)
    assert door.excuses(during)
    assert not door.excuses(door.deaths)


@pytest.mark.parametrize(
    ("status", "headers", "body", "lost"),
    [
        (200, {}, {"answer": {"question": "q", "body_sha256": "d"}}, ""),
        (200, {}, {"answer": {"question": "another", "body_sha256": "d"}}, "somebody else's"),
        (503, {"Retry-After": "5"}, {"error": {"type": "unavailable"}}, ""),
        (503, {}, {"error": {"type": "unavailable"}}, "answered 503"),
        (503, {"Retry-After": "5"}, {"error": {"type": "queue_timeout"}}, "answered 503"),
        (500, {}, {"error": {"type": "worker_crashed"}}, "answered 500"),
        (504, {}, {"error": {"type": "execution_timeout"}}, "answered 504"),
    ],
)
def test_an_accepted_request_is_lost_unless_its_own_answer_comes(
    status: int, headers: dict[str, str], body: dict[str, Any], lost: str
) -> None:
    load = Load(clients=0, seed=1)
    load.stop()
    told = http.client.HTTPMessage()
    for name, value in headers.items():
        told[name] = value
    load.judge(Question(Image(b"", "d"), "q"), status, told, json.dumps(body).encode())
    assert len(load.counts()["lost"]) == bool(lost)
    assert lost in "".join(load.counts()["lost"])


def test_a_process_that_closes_a_descriptor_while_it_is_looked_at_is_not_gone() -> None:
    busy = "import os\nwhile True: os.close(os.dup(0))"
    with subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.DEVNULL) as process:
        looks = [held(process.pid) for _ in range(2000)]
        process.kill()
    assert None not in looks
    assert held(process.pid) is None
