# SPDX-License-Identifier: Apache-2.0
"""Who else reaches for the cards and the CPUs' clocks."""

from dataclasses import replace

import pytest

from gpuwarden.doctor import rivals
from gpuwarden.doctor.commands import Answer
from gpuwarden.doctor.findings import AS_ROOT, Finding, Verdict
from gpuwarden.doctor.places import Absence
from gpuwarden.doctor.rivals import Running
from tests.unit.doctor.machine import Made, unit, verdicts

NAME = "other holders of card limits"
LOOP = "while true; do nvidia-smi -i 0 -pl 250; sleep 60; done"
DCGM = """\
+--------------------------+------------------------+------------------------+
| all_gpu_group            |                        |                        |
| Group of 1 GPUs          | TARGET CONFIGURATION   | CURRENT CONFIGURATION  |
+==========================+========================+========================+
| Compute Mode             | Not Specified          | Unrestricted           |
| SM Application Clock     | Not Specified          | 1980                   |
| Power Limit              | {limit} | 700                    |
+--------------------------+------------------------+------------------------+
"""
POLICY = """\
+-----------------------------+------------------------------------------------+
| Violation conditions        | Double-bit ECC errors                          |
| Action on violation         | {action} |
+-----------------------------+------------------------------------------------+
"""
FACTS = rivals.RivalFacts(
    sees_all=True,
    running=[],
    timed=[],
    lact=Absence.MISSING,
    dcgm=None,
    power_units={"tlp.service": "inactive"},
    tuning=False,
)


def process(made: Made, pid: int, *arguments: str, unit: str = "") -> None:
    made.write(f"/proc/{pid}/cmdline", "\0".join([*arguments, ""]))
    made.write(f"/proc/{pid}/cgroup", f"0::/system.slice/{unit}\n" if unit else "0::/user.slice\n")


def limits(made: Made, answers: dict[str, Answer] | None = None) -> list[Finding]:
    findings = rivals.examine(made.node(run=answers))
    return [finding for finding in findings if finding.name == NAME]


def judged(running: Running, **changes: object) -> list[Finding]:
    facts = replace(FACTS, running=[running])
    values = {name: getattr(facts, name) for name in rivals.RivalFacts.__dataclass_fields__}
    findings = rivals.judge(rivals.RivalFacts(**(values | changes)))
    return [finding for finding in findings if finding.name == NAME]


def test_a_quiet_machine_has_no_rival(made: Made) -> None:
    process(made, 1, "/sbin/init")
    process(made, 50, "/usr/bin/python3", "/usr/bin/gpuwarden", "doctor")
    process(made, 60, "nvidia-smi", "-pl", "250")  # an administrator, once
    process(made, 70, "bash", "-c", "nvidia-smi -pl 250")
    process(made, 80, "bash", "-c", "while sleep 5; do nvidia-smi -q -d POWER; done")
    (finding,) = limits(made)
    assert (finding.verdict, finding.found) == (Verdict.GOOD, "none")


@pytest.mark.parametrize(
    "arguments",
    [
        ("bash", "-c", LOOP),
        ("/bin/sh", "-c", "until false; do nvidia-smi --power-limit=250; done"),
        ("watch", "-n", "60", "nvidia-smi -lgc 300,1200"),
        ("/bin/bash", "/usr/local/bin/cap.sh"),
    ],
)
def test_a_loop_that_sets_cards_is_wrong(made: Made, arguments: tuple[str, ...]) -> None:
    process(made, 1, "/sbin/init")
    made.write("/usr/local/bin/cap.sh", f"#!/bin/bash\n{LOOP}\n")
    process(made, 812, *arguments, unit="cap.service")
    (finding,) = limits(made)
    assert finding.verdict is Verdict.WRONG
    assert "PID 812, cap.service" in finding.found
    assert finding.mend == "systemctl disable --now cap.service"


def test_a_tool_that_sets_cards_is_ended_by_its_unit_or_by_its_pid(made: Made) -> None:
    process(made, 1, "/sbin/init")
    process(made, 300, "/usr/bin/nvidia-pstated", unit="nvidia-pstated.service")
    process(made, 301, "/usr/bin/python3", "/usr/bin/gwe", "--hide-window")
    process(made, 302, "nvidia-pstated", unit="run-u7.service")
    made.write("/run/systemd/transient/run-u7.service", "")
    by_service, by_pid, transient = limits(made)
    assert by_service.verdict is Verdict.WRONG
    assert by_service.mend == "systemctl disable --now nvidia-pstated.service"
    assert by_pid.verdict is Verdict.DOUBTFUL
    assert by_pid.mend.startswith("kill 301")
    assert transient.mend == "systemctl stop run-u7.service"


@pytest.mark.parametrize(
    ("configuration", "verdict"),
    [
        ("gpus:\n  10DE:2204:\n    fan_control_enabled: true\n", Verdict.DOUBTFUL),
        ("gpus:\n  10DE:2204:\n    power_cap: null\n", Verdict.DOUBTFUL),
        ("gpus:\n  10DE:2204:\n    power_cap: 250.0\n", Verdict.WRONG),
        ("gpus:\n  10DE:2204:\n    max_core_clock: 1500\n", Verdict.WRONG),
        (Absence.DENIED, Verdict.DOUBTFUL),
    ],
)
def test_lact_is_wrong_only_where_it_holds_more_than_a_fan(
    configuration: str | Absence, verdict: Verdict
) -> None:
    lact = Running(5, ("/usr/bin/lact", "daemon"), "", "lactd.service")
    (finding,) = judged(lact, lact=configuration)
    assert finding.verdict is verdict


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (Answer(DCGM.format(limit="Not Specified")), Verdict.GOOD),
        (Answer(DCGM.format(limit="250")), Verdict.WRONG),
        (Answer(POLICY.format(action="None")), Verdict.GOOD),
        (Answer(POLICY.format(action="Reset GPU")), Verdict.DOUBTFUL),
        (Answer("", "dcgmi is not installed"), Verdict.DOUBTFUL),
    ],
)
def test_dcgm_that_only_measures_is_no_rival(made: Made, answer: Answer, verdict: Verdict) -> None:
    process(made, 1, "/sbin/init")
    process(made, 400, "/usr/bin/nv-hostengine", "-n", unit="nvidia-dcgm.service")
    (finding,) = limits(made, {"dcgmi": answer})
    assert finding.verdict is verdict


def test_what_sets_cards_by_the_clock_is_wrong_and_once_a_boot_it_is_the_administrators(
    made: Made,
) -> None:
    process(made, 1, "/sbin/init")
    service = "[Service]\nType=oneshot\nExecStart=/usr/local/bin/cap\n"
    made.write("/usr/local/bin/cap", "#!/bin/sh\nnvidia-smi -pl 250\n")
    made.write("/etc/systemd/system/boot-cap.service", service)
    made.write("/etc/cron.d/once", "@reboot root nvidia-smi -pl 250\n# * * nvidia-smi -pl 1\n")
    assert [finding.verdict for finding in limits(made)] == [Verdict.GOOD]
    made.write("/etc/systemd/system/cap.service", service)
    made.write("/etc/systemd/system/cap.timer", "[Timer]\nOnCalendar=hourly\n")
    made.write("/etc/cron.d/cap", "*/5 * * * * root nvidia-smi -pl 250\n")
    (cron,) = limits(made)
    wants = made.root / "etc/systemd/system/timers.target.wants"
    wants.mkdir()
    (wants / "cap.timer").symlink_to("../cap.timer")
    timer, cron = limits(made)
    assert timer.mend == "systemctl disable --now cap.timer"
    assert cron.mend == "sensible-editor /etc/cron.d/cap  # take the line with nvidia-smi out"
    assert {timer.verdict, cron.verdict} == {Verdict.WRONG}


def test_a_user_who_sees_only_himself_knows_of_no_rival(made: Made) -> None:
    (finding,) = limits(made)
    assert (finding.verdict, finding.mend) == (Verdict.UNKNOWN, AS_ROOT)


@pytest.mark.parametrize(
    ("state", "tuning", "verdict"),
    [
        ("inactive", True, Verdict.GOOD),
        ("active", False, Verdict.DOUBTFUL),
        ("active", True, Verdict.WRONG),
    ],
)
def test_power_daemons_are_wrong_only_where_tuned_is_wanted(
    state: str, tuning: bool, verdict: Verdict
) -> None:
    facts = replace(FACTS, power_units={"tlp.service": state}, tuning=tuning)
    assert verdicts(rivals.judge(facts))["power daemons"] is verdict
    unknown = replace(facts, power_units={})
    assert verdicts(rivals.judge(unknown))["power daemons"] is Verdict.UNKNOWN


def test_power_daemons_are_asked_of_systemd(made: Made) -> None:
    facts = rivals.read(made.node(units={"tlp.service": unit("active")}))
    assert facts.power_units == {"tlp.service": "active"}
