# SPDX-License-Identifier: Apache-2.0
"""What is remembered of a worker's life while it lasts."""

from dataclasses import replace

from gpuwarden.guard.jobs import Jobs
from gpuwarden.guard.kernel import Process
from gpuwarden.guard.lifecycle import UnitFacts
from gpuwarden.guard.lives import Lives
from tests.integration.supervised_node import plan

WORKER = plan().workers[0]
UP = UnitFacts(active_state="active", main_pid=10, control_group="/w")
MAIN, CHILD, GRANDCHILD = Process(10, 1, 1), Process(11, 10, 2), Process(12, 11, 3)


def lives() -> Lives:
    known = Lives(Jobs(lambda: None), None)
    known.look(WORKER, UP, (MAIN, CHILD, GRANDCHILD), None, None)
    return known


def test_processes_that_went_with_their_main_process_are_of_its_life() -> None:
    known = lives()
    known.look(WORKER, UP, (GRANDCHILD,), None, None)
    assert known.life(0, 0).processes == (MAIN, CHILD, GRANDCHILD)
    known.look(WORKER, UP, (), None, None)
    assert known.life(0, 0).processes == (MAIN, CHILD, GRANDCHILD)


def test_processes_that_ended_before_it_are_not() -> None:
    known = lives()
    known.look(WORKER, UP, (MAIN,), None, None)
    assert known.life(0, 0).processes == (MAIN,)


def test_a_worker_is_down_until_its_next_life_is_known() -> None:
    known = lives()
    life = known.life(0, 0)
    known.expect(0)
    assert known.is_down(life)  # asked as soon as it has ended, before the next look
    known.look(WORKER, UnitFacts(active_state="inactive"), (), None, None)
    assert known.is_down(life)
    known.look(WORKER, replace(UP, main_pid=20), (Process(20, 1, 9),), None, None)
    assert not known.is_down(life)
