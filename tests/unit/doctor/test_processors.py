# SPDX-License-Identifier: Apache-2.0
"""Governor, real-time limit, and who has which priority."""

from dataclasses import replace

import pytest

from gpuwarden.doctor import processors
from gpuwarden.doctor.findings import Verdict
from gpuwarden.doctor.places import Absence
from gpuwarden.doctor.processes import FIFO, OTHER, Thread
from tests.unit.doctor.machine import GROUP, WORKER_UNIT, Made, by_name, plan, unit, verdicts

CPUFREQ = "/sys/devices/system/cpu/cpu{}/cpufreq/{}"
PLAIN = Thread("python3", frozenset({1}), OTHER, 0, 0)
GPU = replace(PLAIN, name="gpu")


def priority(planned: str, *threads: Thread) -> tuple[Verdict, str]:
    facts = processors.ProcessorFacts([], "950000", [processors.WorkerThreads(0, planned, threads)])
    finding = by_name(processors.judge(facts))["priority of worker 0"]
    return finding.verdict, finding.found


def limit(runtime: str | Absence, planned: str = "normal") -> Verdict:
    workers = [processors.WorkerThreads(0, planned, [PLAIN])]
    findings = processors.judge(processors.ProcessorFacts([], runtime, workers))
    return verdicts(findings)["real-time limit"]


def test_a_worker_is_read_as_the_kernel_has_it(made: Made) -> None:
    made.write("/proc/sys/kernel/sched_rt_runtime_us", "950000\n")
    made.write(f"/sys/fs/cgroup{GROUP}/cgroup.procs", "100\n")
    threads = (("python3) S 1 (", 0, 0, 0), ("gpu", FIFO, 10, 0))
    made.process(100, threads=threads)
    for cpu in range(2):
        made.write(CPUFREQ.format(cpu, "scaling_governor"), "performance\n")
    node = made.node(
        plan=plan(inference_priority="fifo:10"), units={WORKER_UNIT: unit(group=GROUP)}
    )
    findings = by_name(processors.examine(node))
    assert {finding.verdict for finding in findings.values()} == {Verdict.GOOD}
    assert findings["priority of worker 0"].found == "gpu fifo:10"
    assert findings["CPU governor"].found == "performance"


@pytest.mark.parametrize(
    ("planned", "threads", "verdict", "found"),
    [
        ("normal", [PLAIN, GPU], Verdict.GOOD, "gpu normal"),
        ("normal", [PLAIN], Verdict.GOOD, "normal"),
        (
            "fifo:10",
            [PLAIN, replace(GPU, policy=FIFO, priority=10)],
            Verdict.GOOD,
            "gpu fifo:10",
        ),
        (
            "fifo:10",
            [replace(GPU, policy=FIFO, priority=50)],
            Verdict.WRONG,
            "gpu fifo:50",
        ),
        ("fifo:10", [GPU], Verdict.WRONG, "gpu normal"),
        ("fifo:10", [replace(GPU, nice=-10)], Verdict.DOUBTFUL, "gpu normal, nice -10"),
        ("fifo:10", [PLAIN], Verdict.UNKNOWN, "no thread is named gpu yet: it still loads"),
        ("normal", [replace(GPU, policy=FIFO, priority=9)], Verdict.DOUBTFUL, "gpu fifo:9"),
        (
            "fifo:10",
            [replace(PLAIN, policy=FIFO, priority=50), replace(GPU, policy=FIFO, priority=10)],
            Verdict.WRONG,
            "real-time: python3 fifo:50",
        ),
    ],
)
def test_the_gpu_thread_has_the_priority_of_the_plan_and_nothing_else_has(
    planned: str, threads: list[Thread], verdict: Verdict, found: str
) -> None:
    assert priority(planned, *threads) == (verdict, found)


def test_a_real_time_limit_that_is_off_is_wrong_only_where_somebody_uses_real_time() -> None:
    assert limit("950000", "fifo:10") is Verdict.GOOD
    assert limit("-1") is Verdict.DOUBTFUL
    assert limit("-1", "fifo:10") is Verdict.WRONG
    assert limit("0", "fifo:10") is Verdict.WRONG
    assert limit(Absence.MISSING) is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("governor", "preference", "verdict"),
    [
        ("performance", "", Verdict.GOOD),
        ("powersave", "balance_performance", Verdict.GOOD),
        ("powersave", "balance_power", Verdict.DOUBTFUL),
        ("schedutil", "", Verdict.DOUBTFUL),
        ("", "", Verdict.NOT_APPLICABLE),
    ],
)
def test_the_governor(made: Made, governor: str, preference: str, verdict: Verdict) -> None:
    if governor:
        made.write(CPUFREQ.format(0, "scaling_governor"), f"{governor}\n")
    if preference:
        made.write(CPUFREQ.format(0, "energy_performance_preference"), f"{preference}\n")
    assert verdicts(processors.examine(made.node()))["CPU governor"] is verdict


@pytest.mark.parametrize(
    ("planned", "number"), [("normal", 0), ("fifo:10", 10), ("fifo:x", 0), ("", 0), ("rr:5", 0)]
)
def test_a_planned_priority_in_words(planned: str, number: int) -> None:
    assert processors.planned_priority(planned) == number


def test_a_server_drives_the_card_itself_and_real_time_for_all_of_it_is_a_doubt() -> None:
    def judged(*threads: Thread) -> tuple[Verdict, str]:
        worker = processors.WorkerThreads(0, "fifo:10", threads, has_server=True)
        findings = by_name(processors.judge(processors.ProcessorFacts([], "950000", [worker])))
        return findings["priority of worker 0"].verdict, findings["priority of worker 0"].found

    server = replace(PLAIN, name="vllm", policy=FIFO, priority=10)
    assert judged(PLAIN, GPU) == (Verdict.GOOD, "normal")
    assert judged(PLAIN, GPU, server) == (Verdict.DOUBTFUL, "real-time: vllm fifo:10")
