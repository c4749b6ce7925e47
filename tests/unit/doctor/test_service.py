# SPDX-License-Identifier: Apache-2.0
"""The service, seen without asking it."""

from dataclasses import replace

import pytest

from gpuwarden.config import Configuration, digest
from gpuwarden.doctor import service, tuner
from gpuwarden.doctor.findings import AS_ROOT, Verdict
from gpuwarden.doctor.places import Absence
from tests.unit.doctor.machine import Made, by_name, plan, unit, verdicts

FACTS = service.ServiceFacts(
    is_root=True,
    unit="active",
    state="running",
    reasons=[],
    configuration_problem="",
    plan_problem="",
    plan_warnings=[],
    plan_outdated=False,
    metrics="active",
)


def test_a_running_service_is_good() -> None:
    assert set(verdicts(service.judge(FACTS)).values()) == {Verdict.GOOD}


@pytest.mark.parametrize(
    ("facts", "verdict", "words"),
    [
        (replace(FACTS, state="degraded", reasons=["GPU 1 is lost"]), Verdict.WRONG, "GPU 1"),
        (replace(FACTS, state="starting"), Verdict.DOUBTFUL, "starting"),
        (replace(FACTS, state="", unit="failed"), Verdict.WRONG, "failed"),
        (replace(FACTS, state="", unit="inactive"), Verdict.DOUBTFUL, "is inactive"),
        (replace(FACTS, state=""), Verdict.DOUBTFUL, "published nothing"),
        (replace(FACTS, state="", unit=""), Verdict.UNKNOWN, "systemd can't be asked"),
    ],
)
def test_a_service_that_does_not_run_is_told(
    facts: service.ServiceFacts, verdict: Verdict, words: str
) -> None:
    finding = by_name(service.judge(facts))["service"]
    assert finding.verdict is verdict
    assert words in finding.found


@pytest.mark.parametrize(
    ("problem", "is_root", "verdict"),
    [
        ("/etc/x.toml:2: [workers] bad", True, Verdict.WRONG),
        ("/etc/x.toml: an error: Permission denied", False, Verdict.UNKNOWN),
        ("/etc/x.toml: an error: Permission denied", True, Verdict.WRONG),
    ],
)
def test_a_wrong_configuration_is_told(problem: str, is_root: bool, verdict: Verdict) -> None:
    facts = replace(FACTS, configuration_problem=problem, is_root=is_root)
    finding = by_name(service.judge(facts))["configuration"]
    assert finding.verdict is verdict
    assert (finding.mend == AS_ROOT) == (verdict is Verdict.UNKNOWN)


@pytest.mark.parametrize(
    "facts",
    [
        replace(FACTS, plan_problem="of another boot"),
        replace(FACTS, plan_outdated=True),
        replace(FACTS, plan_warnings=["worker 0 is not pinned"]),
    ],
)
def test_a_plan_that_is_not_of_now_is_a_doubt(facts: service.ServiceFacts) -> None:
    assert verdicts(service.judge(facts))["placement plan"] is Verdict.DOUBTFUL


def test_a_plan_says_which_configuration_it_was_made_for(made: Made) -> None:
    configuration = Configuration()
    made_for = plan().model_copy(update={"configuration_digest": digest(configuration)})
    node = made.node(plan=made_for, configuration=configuration)
    assert not service.read(node).plan_outdated
    other = made_for.model_copy(update={"configuration_digest": "0123"})
    assert service.read(made.node(plan=other)).plan_outdated


def test_a_dead_service_is_read_as_dead(made: Made) -> None:
    facts = service.read(made.node(units={"medgemma-guard.service": unit("inactive")}))
    assert (facts.unit, facts.state) == ("inactive", "")


@pytest.mark.parametrize(
    ("socket", "guard", "verdict", "mend"),
    [
        ("active", "active", Verdict.GOOD, ""),
        ("failed", "active", Verdict.DOUBTFUL, "ss -ltnp 'sport = :9835'"),
        ("inactive", "active", Verdict.DOUBTFUL, "systemctl start medgemma-metrics.socket"),
        ("inactive", "inactive", Verdict.NOT_APPLICABLE, ""),
        ("", "", Verdict.UNKNOWN, ""),
    ],
)
def test_a_port_for_metrics_that_is_not_open_is_told(
    socket: str, guard: str, verdict: Verdict, mend: str
) -> None:
    finding = by_name(service.judge(replace(FACTS, metrics=socket, unit=guard)))["metrics"]
    assert finding.verdict is verdict
    assert finding.mend.startswith(mend)


TUNER = tuner.TunerFacts(("gpuwarden-day", "gpuwarden-night"), "active", True, "gpuwarden-day")


@pytest.mark.parametrize(
    ("facts", "verdict"),
    [
        (TUNER, Verdict.GOOD),
        (replace(TUNER, active_profile="gpuwarden-night"), Verdict.GOOD),
        (replace(TUNER, active_profile="balanced"), Verdict.WRONG),
        (replace(TUNER, active_profile=""), Verdict.WRONG),
        (replace(TUNER, active_profile=Absence.MISSING), Verdict.UNKNOWN),
        (replace(TUNER, unit="inactive"), Verdict.WRONG),
        (replace(TUNER, unit="inactive", loaded=False), Verdict.WRONG),
        (replace(TUNER, unit=""), Verdict.UNKNOWN),
        (replace(TUNER, profiles=()), Verdict.NOT_APPLICABLE),
    ],
)
def test_tuned_is_judged_only_where_it_is_wanted(facts: tuner.TunerFacts, verdict: Verdict) -> None:
    assert verdicts(tuner.judge(facts)) == {"tuned": verdict}


def test_tuning_that_is_wanted_is_read_from_the_configuration(made: Made) -> None:
    made.write(tuner.ACTIVE_PROFILE, "gpuwarden-day\n")
    wanted = Configuration.model_validate({"tuning": {"enabled": True}})
    units = {"tuned.service": unit()}
    assert tuner.read(made.node(configuration=wanted, units=units)) == TUNER
    assert tuner.read(made.node(units=units)).profiles == ()
