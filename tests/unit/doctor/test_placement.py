# SPDX-License-Identifier: Apache-2.0
"""Workers against their plan, as /proc shows them."""

from dataclasses import replace

import pytest

from gpuwarden.doctor import placement
from gpuwarden.doctor.findings import AS_ROOT, Verdict
from gpuwarden.doctor.places import Absence
from gpuwarden.doctor.processes import Pages, Process, Thread, own_pages
from tests.unit.doctor.machine import GROUP, WORKER_UNIT, Made, by_name, plan, unit, verdicts

# As Debian 12's kernel writes it: own memory, a library, the stack.
NUMA_MAPS = """\
55d0c0000000 prefer:0 heap anon=1000 dirty=1000 active=0 N0=990 N1=10 kernelpagesize_kB=4
7f0000000000 prefer:0 file=/usr/lib/libc.so.6 mapped=300 N1=300 kernelpagesize_kB=4
7f0100000000 default file=/memfd:body\\040(deleted) dirty=500 N1=500 kernelpagesize_kB=4
7ffc00000000 prefer:0 stack anon=10 dirty=10 N0=10 kernelpagesize_kB=4
7ffd00000000 default
"""
THREAD = Thread(name="python3", cpus=frozenset({1}), policy=0, priority=0, nice=0)


def process(pages: Pages | Absence, cpus: frozenset[int] = frozenset({1})) -> Process:
    return Process(100, (replace(THREAD, cpus=cpus),), frozenset({0, 1}), pages)


WORKER = placement.WorkerFacts(
    number=0,
    planned_cpus=frozenset({1}),
    planned_node=0,
    planned_policy="preferred",
    online_cpus=frozenset({0, 1, 2, 3}),
    unit="active",
    processes=(process(Pages({0: 100}, "prefer:0")),),
)


def worker_with(pages: Pages, policy: str = "preferred") -> placement.WorkerFacts:
    return replace(WORKER, planned_policy=policy, processes=(process(pages),))


def test_a_worker_that_follows_its_plan_is_good(made: Made) -> None:
    made.write("/sys/devices/system/cpu/online", "0-3\n")
    made.write(f"/sys/fs/cgroup{GROUP}/cgroup.procs", "100\n102\n")
    made.process(100, cpus="1", numa_maps=NUMA_MAPS)
    made.process(102, cpus="1", numa_maps="7f00 prefer:0 anon=5 N0=5 kernelpagesize_kB=4\n")
    findings = placement.examine(made.node(plan=plan(), units={WORKER_UNIT: unit(group=GROUP)}))
    assert set(verdicts(findings).values()) == {Verdict.GOOD}
    assert by_name(findings)["CPUs of worker 0"].found == "1"
    assert by_name(findings)["memory of worker 0"].found == "99.0% of 4 MiB on node 0"
    assert by_name(findings)["memory policy of worker 0"].found == "prefer:0"


def test_memory_may_be_planned_for_another_node_than_the_cpus(made: Made) -> None:
    node = made.node(plan=plan(numa_node=0, memory_node=1))
    assert [worker.planned_node for worker in placement.read(node)] == [1]


def test_own_memory_is_what_no_file_holds() -> None:
    pages = own_pages(NUMA_MAPS)
    assert pages == Pages({0: 1000 * 4096, 1: 10 * 4096}, "prefer:0")
    huge = own_pages("7f00 bind:1 anon=2 N1=2 kernelpagesize_kB=2048")
    assert huge == Pages({1: 4 * 2**20}, "bind:1")


def test_a_process_outside_the_plan_is_named_with_its_cpus(made: Made) -> None:
    made.write(f"/sys/fs/cgroup{GROUP}/cgroup.procs", "100\n102\n")
    made.process(100, cpus="1")
    made.process(102, cpus="0-3")
    findings = placement.examine(made.node(plan=plan(), units={WORKER_UNIT: unit(group=GROUP)}))
    finding = by_name(findings)["CPUs of worker 0"]
    assert finding.verdict is Verdict.WRONG
    assert finding.found == "PID 102: 0-3"
    assert finding.mend == "systemctl restart medgemma-worker@0.service"


def test_a_worker_with_fewer_cpus_than_planned_is_a_doubt_unless_they_are_offline() -> None:
    fewer = replace(WORKER, planned_cpus=frozenset({1, 2}))
    assert verdicts(placement.judge([fewer]))["CPUs of worker 0"] is Verdict.DOUBTFUL
    offline = replace(fewer, online_cpus=frozenset({0, 1}))
    assert verdicts(placement.judge([offline]))["CPUs of worker 0"] is Verdict.GOOD


@pytest.mark.parametrize(
    ("policy", "pages", "verdict"),
    [
        ("preferred", {0: 95, 1: 5}, Verdict.GOOD),
        ("preferred", {0: 94, 1: 6}, Verdict.DOUBTFUL),
        ("preferred", {0: 49, 1: 51}, Verdict.WRONG),
        ("bind", {0: 94, 1: 6}, Verdict.WRONG),
        ("none", {0: 10, 1: 90}, Verdict.NOT_APPLICABLE),
        ("preferred", {}, Verdict.GOOD),
    ],
)
def test_pages_on_the_wrong_node(policy: str, pages: dict[int, int], verdict: Verdict) -> None:
    findings = placement.judge([worker_with(Pages(pages, "prefer:0"), policy)])
    assert verdicts(findings)["memory of worker 0"] is verdict


@pytest.mark.parametrize(
    ("planned", "found", "verdict"),
    [
        ("preferred", "prefer:0", Verdict.GOOD),
        ("preferred", "prefer (many):0", Verdict.GOOD),
        ("preferred", "prefer:1", Verdict.WRONG),
        ("preferred", "default", Verdict.WRONG),
        ("bind", "bind:0", Verdict.GOOD),
        ("bind", "prefer:0", Verdict.WRONG),
        ("none", "default", Verdict.NOT_APPLICABLE),
    ],
)
def test_a_memory_policy_other_than_planned(planned: str, found: str, verdict: Verdict) -> None:
    findings = placement.judge([worker_with(Pages({0: 1}, found), planned)])
    assert verdicts(findings)["memory policy of worker 0"] is verdict


def test_a_user_who_may_not_look_is_told_so() -> None:
    closed = replace(WORKER, processes=(process(Absence.DENIED),))
    findings = by_name(placement.judge([closed]))
    for name in ("memory policy of worker 0", "memory of worker 0"):
        assert findings[name].verdict is Verdict.UNKNOWN
        assert findings[name].mend == AS_ROOT
    without_numa = replace(WORKER, processes=(process(Absence.MISSING),))
    finding = by_name(placement.judge([without_numa]))["memory of worker 0"]
    assert (finding.verdict, finding.mend) == (Verdict.UNKNOWN, "")
    assert "without NUMA" in finding.found


def test_a_worker_that_is_down_or_not_pinned_has_no_place_to_judge() -> None:
    down = replace(WORKER, unit="inactive", processes=())
    assert verdicts(placement.judge([down])) == {"CPUs of worker 0": Verdict.NOT_APPLICABLE}
    free = replace(WORKER, planned_cpus=frozenset(), planned_node=-1)
    assert set(verdicts(placement.judge([free])).values()) == {Verdict.NOT_APPLICABLE}


def test_a_process_that_ends_meanwhile_is_nobody(made: Made) -> None:
    made.write(f"/sys/fs/cgroup{GROUP}/cgroup.procs", "100\n")
    findings = placement.examine(made.node(plan=plan(), units={WORKER_UNIT: unit(group=GROUP)}))
    assert set(verdicts(findings).values()) == {Verdict.UNKNOWN}
