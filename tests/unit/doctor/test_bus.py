# SPDX-License-Identifier: Apache-2.0
"""The bus policy by its file, its group, and what calls get."""

from dataclasses import replace

import pytest

from gpuwarden.doctor import bus
from gpuwarden.doctor.commands import Answer
from gpuwarden.doctor.findings import AS_ROOT, Finding, Verdict
from tests.unit.doctor.machine import Made, unit

GOOD = Answer("")
DENIED = Answer("", "Call failed: Access denied")
FACTS = bus.BusFacts(
    is_root=True,
    has_bus=True,
    policy=bus.POLICIES[1],
    members=["oscar"],
    guard_runs=True,
    own=GOOD,
    as_member=GOOD,
)


def finding(facts: bus.BusFacts) -> Finding:
    (only,) = bus.judge(facts)
    return only


@pytest.mark.parametrize(
    ("facts", "verdict", "words"),
    [
        (FACTS, Verdict.GOOD, "root and oscar of the group may call"),
        (replace(FACTS, members=[], as_member=None), Verdict.GOOD, "is empty"),
        (replace(FACTS, as_member=DENIED), Verdict.WRONG, "oscar's call: "),
        (replace(FACTS, as_member=Answer("", "setpriv is not installed")), Verdict.UNKNOWN, "root"),
        (replace(FACTS, own=DENIED), Verdict.WRONG, "root's call: "),
        (replace(FACTS, own=Answer("", "timed out")), Verdict.UNKNOWN, "timed out"),
        (replace(FACTS, policy=""), Verdict.WRONG, "not installed"),
        (replace(FACTS, members=None), Verdict.WRONG, "no group gpuwarden"),
        (replace(FACTS, guard_runs=False), Verdict.UNKNOWN, "once the guard runs"),
        (replace(FACTS, has_bus=False), Verdict.UNKNOWN, "no system bus"),
    ],
)
def test_a_policy_is_judged_by_what_callers_get(
    facts: bus.BusFacts, verdict: Verdict, words: str
) -> None:
    assert finding(facts).verdict is verdict
    assert words in finding(facts).found


def test_a_user_outside_the_group_is_told_to_ask_as_root() -> None:
    denied = finding(replace(FACTS, is_root=False, own=DENIED, as_member=None))
    assert (denied.verdict, denied.mend) == (Verdict.UNKNOWN, AS_ROOT)
    assert finding(replace(FACTS, is_root=False, as_member=None)).verdict is Verdict.GOOD


def test_nobody_is_asked_while_the_guard_is_down(made: Made) -> None:
    made.write(bus.SOCKET, "")
    made.write(bus.POLICIES[1], "")
    made.write("/etc/group", "root:x:0:\ngpuwarden:x:990:oscar,olga\n")
    down = bus.read(made.node(units={"medgemma-guard.service": unit("inactive")}))
    assert (down.own.problem, down.as_member) == ("not tried", None)
    answers = {"busctl": GOOD, "setpriv": DENIED}
    up = bus.read(made.node(units={"medgemma-guard.service": unit()}, run=answers))
    assert (up.own, up.as_member, up.members) == (GOOD, DENIED, ["oscar", "olga"])
