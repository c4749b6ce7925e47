# SPDX-License-Identifier: Apache-2.0
"""Does each worker run where the plan says, and does its memory lie there?"""

from collections.abc import Sequence
from dataclasses import dataclass

from gpuwarden import names
from gpuwarden.control.states import PlannedWorker
from gpuwarden.cpulist import CpuListError, format_cpu_list, parse_cpu_list
from gpuwarden.doctor.findings import AS_ROOT, Finding, Question
from gpuwarden.doctor.node import Node
from gpuwarden.doctor.places import Absence, cpus_of
from gpuwarden.doctor.processes import Pages, Process, members, read_process
from gpuwarden.topology.model import NO_NODE

# Issue of this feature: at least 95 % of a worker's own pages lie on its node.
LEAST_SHARE = 0.95
# Most of the memory away is no accident of a full node any more.
WRONG_SHARE = 0.5

_FORBIDDEN = "bind forbids it, so the plan is not at work"
_CPUS = Question(
    "CPUs", "the plan's", "across the sockets a card's memory is some 40 % slower to reach"
)  # article 4: cross-node latency
# docs/placement.md; Documentation/admin-guide/mm/numa_memory_policy.rst.
_POLICY = Question(
    "memory policy", "the plan's", "it decides on which NUMA node the worker's memory comes to lie"
)
_PAGES = Question(
    "memory",
    f"at least {LEAST_SHARE:.0%} on the card's NUMA node",
    "each byte from the other node crosses the link between the sockets, twice on its way",
)


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """One worker: the plan's word, and what the kernel says of its processes.

    :ivar processes: empty where it does not run, or nobody can be asked whether it does.
    :ivar planned_cpus: empty for a worker that isn't pinned.
    :ivar online_cpus: what the machine has; MISSING where it doesn't say.
    """

    number: int
    planned_cpus: frozenset[int]
    planned_node: int
    planned_policy: str
    online_cpus: frozenset[int] | Absence
    unit: str
    processes: tuple[Process, ...]


def read(node: Node) -> list[WorkerFacts]:
    """The workers of the plan."""
    online = cpus_of(node.text("/sys/devices/system/cpu/online"))
    return [_worker(worker, node, online) for worker in node.plan.workers] if node.plan else []


def judge(facts: Sequence[WorkerFacts]) -> list[Finding]:
    """CPUs, memory policy and pages of each worker."""
    findings: list[Finding] = []
    for worker in facts:
        about = f"worker {worker.number}"
        if not worker.processes:
            state = worker.unit or "unknown to systemd"
            findings.append(_CPUS.about(about).not_applicable(f"it does not run ({state})"))
        else:
            findings += [_cpus(worker), _policy(worker), _pages(worker)]
    return findings


def examine(node: Node) -> list[Finding]:
    """Both at once."""
    return judge(read(node))


def planned_cpus(worker: PlannedWorker) -> frozenset[int]:
    """The worker's CPUs by the plan; none where it isn't pinned."""
    try:
        return parse_cpu_list(worker.cpus)
    except CpuListError:
        return frozenset()


def _worker(worker: PlannedWorker, node: Node, online: frozenset[int] | Absence) -> WorkerFacts:
    unit = node.units.get(names.worker_unit(worker.number))
    pids = members(unit.control_group, node.root) if unit else ()
    return WorkerFacts(
        number=worker.number,
        planned_cpus=planned_cpus(worker),
        planned_node=worker.numa_node if worker.memory_node == NO_NODE else worker.memory_node,
        planned_policy=worker.memory_policy,
        online_cpus=online,
        unit=unit.active if unit else "",
        processes=tuple(read_process(pid, node.root) for pid in pids),
    )


def _restart(worker: WorkerFacts) -> str:
    return f"systemctl restart {names.worker_unit(worker.number)}"


def _cpus(worker: WorkerFacts) -> Finding:
    question = _CPUS.about(f"worker {worker.number}", format_cpu_list(worker.planned_cpus) or "any")
    if not worker.planned_cpus:
        return question.not_applicable("the plan doesn't pin it")
    seen = {
        process.pid: frozenset().union(
            *(each.cpus for each in process.threads if not isinstance(each.cpus, Absence))
        )
        for process in worker.processes
    }
    known = {pid: cpus for pid, cpus in seen.items() if cpus}
    if not known:
        return question.unknown("its processes don't show their CPUs", AS_ROOT)
    together = frozenset().union(*known.values())
    strays = {pid: cpus for pid, cpus in known.items() if cpus - worker.planned_cpus}
    if strays:
        places = "; ".join(f"PID {pid}: {format_cpu_list(cpus)}" for pid, cpus in strays.items())
        return question.wrong(places, _restart(worker))
    wanted = worker.planned_cpus
    if not isinstance(worker.online_cpus, Absence):
        wanted &= worker.online_cpus
    found = format_cpu_list(together)
    if wanted - together:
        why = "it may use fewer CPUs than it was given"
        return question.doubtful(found, _restart(worker), why)
    return question.good(found)


def _policy(worker: WorkerFacts) -> Finding:
    planned, node = worker.planned_policy, worker.planned_node
    question = _POLICY.about(f"worker {worker.number}", f"{planned}, node {node}")
    if planned not in ("preferred", "bind") or node == NO_NODE:
        return question.not_applicable("the plan leaves it to the kernel")
    policies = {
        process.pid: process.pages.policy
        for process in worker.processes
        if not isinstance(process.pages, Absence) and process.pages.policy
    }
    if not policies:
        return _unseen(question, worker)
    # numa_maps of proc(5) and mm/mempolicy.c: "prefer:0", "prefer (many):0", "bind:0".
    word = "prefer" if planned == "preferred" else "bind"
    strays = {
        pid: policy
        for pid, policy in policies.items()
        if not (policy.startswith(word) and policy.rpartition(":")[2] == str(node))
    }
    if strays:
        found = "; ".join(f"PID {pid}: {policy}" for pid, policy in strays.items())
        return question.wrong(found, _restart(worker))
    return question.good(", ".join(sorted(set(policies.values()))))


def _pages(worker: WorkerFacts) -> Finding:
    node = worker.planned_node
    question = _PAGES.about(f"worker {worker.number}")
    if node == NO_NODE:
        return question.not_applicable("the NUMA node of its card is unknown")
    seen = [each.pages for each in worker.processes if not isinstance(each.pages, Absence)]
    if not seen:
        return _unseen(question, worker)
    together = _sum(seen)
    share = together.share_on(node)
    found = f"{share:.1%} of {sum(together.node_bytes.values()) / 2**20:.0f} MiB on node {node}"
    if share >= LEAST_SHARE:
        return question.good(found)
    return _far_pages(worker, question, found, share)


def _far_pages(worker: WorkerFacts, question: Question, found: str, share: float) -> Finding:
    """Too much lies elsewhere: how bad that is, the planned policy says."""
    if worker.planned_policy not in ("preferred", "bind"):
        return question.not_applicable(f"{found}; the plan leaves it to the kernel")
    if worker.planned_policy == "bind":
        return question.wrong(found, _restart(worker), _FORBIDDEN)
    if share < WRONG_SHARE:
        return question.wrong(found, _restart(worker))
    mend = f"{_restart(worker)}  # once numastat -m shows room on node {worker.planned_node}"
    return question.doubtful(found, mend, "its node had no room when the memory was taken")


def _sum(pages: Sequence[Pages]) -> Pages:
    nodes = {node for each in pages for node in each.node_bytes}
    return Pages({node: sum(each.node_bytes.get(node, 0) for each in pages) for node in nodes}, "")


def _unseen(question: Question, worker: WorkerFacts) -> Finding:
    if any(process.pages is Absence.DENIED for process in worker.processes):
        return question.unknown("this user may not read /proc/PID/numa_maps", AS_ROOT)
    return question.unknown("there is no /proc/PID/numa_maps: a kernel without NUMA")
