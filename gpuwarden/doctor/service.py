# SPDX-License-Identifier: Apache-2.0
"""Does the service run, on a configuration and a plan that are of now?"""

from collections.abc import Sequence
from dataclasses import dataclass

from gpuwarden import names
from gpuwarden.config import digest
from gpuwarden.control.snapshot import SnapshotError, boottime_nanoseconds, read_snapshot
from gpuwarden.control.states import GuardData
from gpuwarden.doctor.findings import AS_ROOT, Finding, Question
from gpuwarden.doctor.node import Node
from gpuwarden.values import ServiceState

# docs/operate.md, "Is it healthy?": the states, and that a degraded service gives its reasons.
_SERVICE = Question("service", "running", "nobody else starts workers and follows them")
_CONFIGURATION = Question(
    "configuration", "no mistake", "a wrong file is refused, and what it was to change stays as is"
)
# docs/architecture.md, "Who starts, who stops": no plan, no worker.
_PLAN = Question("placement plan", "one of this boot and this configuration", "no plan, no worker")
_METRICS = Question(
    "metrics", "listening", "without it monitoring is told nothing, of an alert neither"
)
_START = f"systemctl start {names.GUARD_UNIT}"
_PLAN_AGAIN = f"systemctl restart {names.NUMA_UNIT}"


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """What is known of the service without asking it: it may be dead.

    :ivar unit: the state of its unit; empty where systemd says nothing.
    :ivar state: what it has published last; empty where nothing of this moment.
    :ivar metrics: the state of the socket that monitoring asks; empty where systemd says nothing.
    :ivar plan_outdated: whether the plan was made for another configuration.
    """

    is_root: bool
    unit: str
    state: str
    reasons: Sequence[str]
    configuration_problem: str
    plan_problem: str
    plan_warnings: Sequence[str]
    plan_outdated: bool
    metrics: str = ""


def read(node: Node) -> ServiceFacts:
    """Raises nothing: what can't be read is empty."""
    unit = node.units.get(names.GUARD_UNIT)
    state, reasons = _published(node)
    plan, configuration = node.plan, node.configuration
    return ServiceFacts(
        is_root=node.is_root,
        unit=unit.active if unit else "",
        state=state,
        reasons=reasons,
        configuration_problem=node.configuration_problem,
        plan_problem=node.plan_problem,
        plan_warnings=plan.warnings if plan else [],
        plan_outdated=bool(
            plan
            and configuration
            and plan.configuration_digest
            and plan.configuration_digest != digest(configuration)
        ),
        metrics=socket.active if (socket := node.units.get(names.METRICS_SOCKET_UNIT)) else "",
    )


def judge(facts: ServiceFacts) -> list[Finding]:
    """Service, configuration, plan, metrics."""
    return [_service(facts), _configuration(facts), _plan(facts), _metrics(facts)]


def examine(node: Node) -> list[Finding]:
    """Both at once."""
    return judge(read(node))


def _published(node: Node) -> tuple[str, list[str]]:
    try:
        snapshot = read_snapshot(node.path(names.GUARD_STATE_FILE), GuardData)
    except SnapshotError:  # dead, or never started: the unit's state tells which
        return "", []
    if not snapshot.is_fresh(boottime_nanoseconds()):
        return "", []
    return snapshot.data.state, snapshot.data.reasons


def _service(facts: ServiceFacts) -> Finding:
    if facts.state == ServiceState.RUNNING:
        return _SERVICE.good("running")
    if facts.state == ServiceState.DEGRADED:
        found = f"degraded: {'; '.join(facts.reasons) or 'no reason given'}"
        return _SERVICE.wrong(found, "gpuwarden status")
    if facts.state:
        return _SERVICE.doubtful(facts.state, "gpuwarden status")
    return _silent(facts)


def _silent(facts: ServiceFacts) -> Finding:
    """It publishes nothing of this moment: what its unit says."""
    if facts.unit == "failed":
        return _SERVICE.wrong("failed", f"journalctl -u {names.GUARD_UNIT} -n 50; {_START}")
    if facts.unit in ("active", "activating", "reloading"):
        found = f"{names.GUARD_UNIT} is {facts.unit}, but has published nothing for seconds"
        return _SERVICE.doubtful(found, f"systemctl status {names.GUARD_UNIT}")
    if facts.unit:
        return _SERVICE.doubtful(f"{names.GUARD_UNIT} is {facts.unit}", _START)
    return _SERVICE.unknown("it publishes nothing, and systemd can't be asked", _START)


def _configuration(facts: ServiceFacts) -> Finding:
    problem = facts.configuration_problem
    if not problem:
        return _CONFIGURATION.good("no mistake")
    if not facts.is_root and "ermission denied" in problem:
        return _CONFIGURATION.unknown(problem, AS_ROOT)
    return _CONFIGURATION.wrong(problem.splitlines()[0], "gpuwarden config check")


def _plan(facts: ServiceFacts) -> Finding:
    if facts.plan_problem:
        return _PLAN.doubtful(facts.plan_problem, _START if not facts.state else _PLAN_AGAIN)
    if facts.plan_outdated:
        return _PLAN.doubtful(
            "made for another configuration",
            _PLAN_AGAIN,
            "workers that start now get what the former configuration said",
        )
    if facts.plan_warnings:
        return _PLAN.doubtful(
            "; ".join(facts.plan_warnings),
            "gpuwarden placement",
            "the plan is the next best to what was asked for",
        )
    return _PLAN.good("of this boot and this configuration")


def _metrics(facts: ServiceFacts) -> Finding:
    unit = names.METRICS_SOCKET_UNIT
    if facts.metrics == "active":
        return _METRICS.good("listening")
    if facts.metrics == "failed":
        mend = (
            f"ss -ltnp 'sport = :9835'; systemctl restart {unit}  # who holds the port; try again"
        )
        return _METRICS.doubtful(f"{unit} has failed: another program may hold its port", mend)
    if not facts.metrics:
        return _METRICS.unknown("systemd can't be asked")
    if facts.unit == "active":
        return _METRICS.doubtful(f"{unit} is {facts.metrics}", f"systemctl start {unit}")
    return _METRICS.not_applicable("it listens once the service was started")
