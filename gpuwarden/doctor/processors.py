# SPDX-License-Identifier: Apache-2.0
"""How fast the CPUs are allowed to be, and who may take them for good."""

from collections.abc import Sequence
from dataclasses import dataclass

from gpuwarden import names
from gpuwarden.doctor.findings import Finding, Question
from gpuwarden.doctor.node import Node
from gpuwarden.doctor.places import Absence, Text, unread
from gpuwarden.doctor.processes import FIFO, ROUND_ROBIN, Thread, members, read_threads
from gpuwarden.priority import NORMAL, PriorityError, parse_priority

CPUS = "/sys/devices/system/cpu"
RUNTIME = "/proc/sys/kernel/sched_rt_runtime_us"
GPU_THREAD = "gpu"  # the kernel's name of the one thread that feeds a worker's card

# Documentation/admin-guide/pm/cpufreq.rst. intel_pstate and amd_pstate call "powersave" what
# follows the load; there energy_performance_preference decides (intel_pstate.rst).
_GOVERNOR = Question(
    "CPU governor",
    "performance, or an energy preference of performance or balance_performance",
    "a CPU that must first wake up from a low clock makes each short burst of decoding late",
)
_FAST_PREFERENCES = frozenset({"performance", "balance_performance"})
# Documentation/scheduler/sched-rt-group.rst: 950000 of 1000000 us is the kernel's own default.
_LIMIT = Question(
    "real-time limit",
    "950000 (the kernel's own), anything but -1 and 0",
    "it keeps 5 % of each CPU for everything else, so that a real-time thread that spins can't "
    "freeze the host",
)  # article 4: real-time everywhere froze a host
_KEEP = (
    "sysctl -w kernel.sched_rt_runtime_us=950000  # see who sets it: grep -r sched_rt /etc/sysctl*"
)
_PRIORITY = Question(
    "priority",
    "the plan's for the thread gpu, normal for all else",
    "the card waits for its one thread; real-time for anything else starves a host",
)  # article 4

_SERVER_PRIORITY = Question(
    "priority",
    "normal for a server that a worker runs",
    "real-time for all of a server keeps its own page and its tokeniser waiting",
)


@dataclass(frozen=True, slots=True)
class Clock:
    """One CPU's governor and energy preference."""

    governor: Text
    preference: Text


@dataclass(frozen=True, slots=True)
class WorkerThreads:
    """The threads of one worker, and the priority that its plan has, as ``fifo:10``.

    :ivar has_server: it runs a server, which drives the card in the worker's place.
    """

    number: int
    planned: str
    threads: Sequence[Thread]
    has_server: bool = False


@dataclass(frozen=True, slots=True)
class ProcessorFacts:
    """Every CPU's clock, the real-time limit, every running worker's threads."""

    clocks: Sequence[Clock]
    rt_runtime: Text
    workers: Sequence[WorkerThreads]


def read(node: Node) -> ProcessorFacts:
    """Raises OSError where the kernel fails to answer."""
    folders = sorted(node.path(CPUS).glob("cpu[0-9]*/cpufreq"))
    return ProcessorFacts(
        clocks=[
            Clock(
                node.text(f"{CPUS}/{folder.parent.name}/cpufreq/scaling_governor"),
                node.text(f"{CPUS}/{folder.parent.name}/cpufreq/energy_performance_preference"),
            )
            for folder in folders
        ],
        rt_runtime=node.text(RUNTIME),
        workers=_workers(node),
    )


def judge(facts: ProcessorFacts) -> list[Finding]:
    """Governor, real-time limit, each worker's priorities."""
    planned = [planned_priority(worker.planned) for worker in facts.workers]
    limit = _limit(facts.rt_runtime, is_used=any(planned))
    priorities = [
        (_server_priority if worker.has_server else _priority)(worker) for worker in facts.workers
    ]
    return [_governor(facts.clocks), limit, *priorities]


def examine(node: Node) -> list[Finding]:
    """Both at once."""
    return judge(read(node))


def planned_priority(planned: str) -> int:
    """The real-time priority that the plan names; 0 where it names none."""
    try:
        return parse_priority(planned) or 0
    except PriorityError:
        return 0


def _workers(node: Node) -> list[WorkerThreads]:
    found = []
    configuration = node.configuration
    has_server = configuration is not None and configuration.workers.engine == "command"
    for worker in node.plan.workers if node.plan else ():
        unit = node.units.get(names.worker_unit(worker.number))
        pids = members(unit.control_group, node.root) if unit else ()
        threads = [thread for pid in pids for thread in read_threads(pid, node.root)]
        if threads:
            planned = worker.inference_priority
            found.append(WorkerThreads(worker.number, planned, threads, has_server))
    return found


def _governor(clocks: Sequence[Clock]) -> Finding:
    known = [(each.governor, each.preference) for each in clocks if isinstance(each.governor, str)]
    if not known:
        return _GOVERNOR.not_applicable("firmware or hypervisor sets the clocks")
    slow = [pair for pair in known if pair[0] != "performance" and not _is_fast(pair[1])]
    if not slow:
        return _GOVERNOR.good(", ".join(sorted({str(governor) for governor, _ in known})))
    kinds = ", ".join(sorted({str(governor) for governor, _ in slow}))
    mend = f"echo performance | tee {CPUS}/cpu*/cpufreq/scaling_governor  # for good: tuned"
    return _GOVERNOR.doubtful(f"{kinds} on {len(slow)} of {len(known)} CPUs", mend)


def _is_fast(preference: Text) -> bool:
    return isinstance(preference, str) and preference in _FAST_PREFERENCES


def _limit(runtime: Text, *, is_used: bool) -> Finding:
    if isinstance(runtime, Absence):
        return unread(_LIMIT, runtime, RUNTIME)
    if runtime not in ("-1", "0"):
        return _LIMIT.good(runtime)
    if not is_used:
        return _LIMIT.doubtful(runtime, _KEEP)
    if runtime == "0":
        return _LIMIT.wrong(runtime, _KEEP, "the kernel refuses the real-time that is planned")
    return _LIMIT.wrong(runtime, _KEEP)


def _priority(worker: WorkerThreads) -> Finding:
    question = _PRIORITY.about(f"worker {worker.number}", worker.planned)
    unit = names.worker_unit(worker.number)
    priority = planned_priority(worker.planned)
    others = [each for each in worker.threads if each.name != GPU_THREAD and _is_realtime(each)]
    if others:
        found = "real-time: " + ", ".join(sorted({_named(each) for each in others}))
        return question.wrong(found, f"systemctl restart {unit}")
    ours = [each for each in worker.threads if each.name == GPU_THREAD]
    if not ours:
        return _without_thread(question, planned=bool(priority))
    found = ", ".join(sorted({_named(each) for each in ours}))
    realtime = [each for each in ours if _is_realtime(each)]
    if not priority:
        mend = f"systemctl restart {unit}"
        why = "somebody has made it real-time without a limit that the plan knows of"
        return question.doubtful(found, mend, why) if realtime else question.good(found)
    if all((each.policy, each.priority) == (FIFO, priority) for each in ours):
        return question.good(found)
    mend = f"systemctl restart {unit}  # what was refused: journalctl -u {unit} -n 50"
    if not realtime and all(each.nice < 0 for each in ours):
        why = "the kernel refused real-time, and a lower nice is the next best"
        return question.doubtful(found, mend, why)
    return question.wrong(found, mend)


def _server_priority(worker: WorkerThreads) -> Finding:
    """Whatever its command gives it, up to what is planned: the kernel sees to that."""
    question = _SERVER_PRIORITY.about(f"worker {worker.number}", NORMAL)
    realtime = sorted({_named(each) for each in worker.threads if _is_realtime(each)})
    if not realtime:
        return question.good(NORMAL)
    mend = "grep -rn chrt /etc/gpuwarden  # [workers.options] command starts it so"
    return question.doubtful("real-time: " + ", ".join(realtime), mend)


def _without_thread(question: Question, *, planned: bool) -> Finding:
    if planned:
        return question.unknown(f"no thread is named {GPU_THREAD} yet: it still loads")
    return question.good(NORMAL)


def _is_realtime(thread: Thread) -> bool:
    return thread.policy in (FIFO, ROUND_ROBIN)


def _named(thread: Thread) -> str:
    kinds = {FIFO: "fifo", ROUND_ROBIN: "rr"}
    if thread.policy in kinds:
        return f"{thread.name} {kinds[thread.policy]}:{thread.priority}"
    nice = f", nice {thread.nice}" if thread.nice else ""
    return f"{thread.name} {NORMAL}{nice}"
