# SPDX-License-Identifier: Apache-2.0
"""Folders, configuration, devices."""

import os
from pathlib import Path

import pytest

from gpuwarden.doctor import access
from gpuwarden.doctor.access import Entry
from gpuwarden.doctor.findings import AS_ROOT, Verdict
from gpuwarden.doctor.places import Absence
from tests.unit.doctor.machine import Made, by_name, plan, verdicts

TMPFILES = Path(__file__).parents[3] / "packaging/tmpfiles/gpuwarden.conf"
OUR_TMPFILES = "/usr/lib/tmpfiles.d/gpuwarden.conf"
JOBS = Entry("/var/lib/gpuwarden/jobs", "gpuwarden-gateway", "gpuwarden-gateway", 0o700)
ME = f"root:x:{os.getuid()}:{os.getgid()}::/:/bin/sh\n"
FACTS = access.AccessFacts(
    tmpfiles=OUR_TMPFILES,
    wanted=[JOBS],
    found=[JOBS],
    files=[],
    devices=[],
    simulated=False,
    worker_groups=["gpuwarden-worker", "video"],
)


def facts(**changes: object) -> access.AccessFacts:
    names = access.AccessFacts.__dataclass_fields__
    values = {name: getattr(FACTS, name) for name in names} | changes
    return access.AccessFacts(**values)


def test_what_our_package_makes_is_what_is_wanted() -> None:
    wanted = access.parse_tmpfiles(TMPFILES.read_text())
    assert JOBS in wanted
    assert Entry("/run/gpuwarden", "root", "root", 0o755) in wanted
    assert len(wanted) == 13


def test_a_folder_that_is_open_gone_or_anothers_is_named_with_one_command(made: Made) -> None:
    made.write("/etc/passwd", ME)
    made.write("/etc/group", f"root:x:{os.getgid()}:\n")
    made.write(
        OUR_TMPFILES,
        "# x\nd /run/a 0755 root root -\nd /run/b 0700 root root -\n"
        "d /run/c 0755 root root -\nf /run/d 0644 root root -\nd /run/e 0700 nobody root -\n",
    )
    for name, mode in (("a", 0o755), ("b", 0o777), ("e", 0o700)):
        (made.root / f"run/{name}").mkdir(parents=True)
        (made.root / f"run/{name}").chmod(mode)
    finding = by_name(access.examine(made.node()))["permissions of folders"]
    assert finding.verdict is Verdict.WRONG
    assert finding.found == (
        "/run/b is root:root 0777, not root:root 0700; /run/c is not there; "
        "/run/e is root:root 0700, not nobody:root 0700"
    )
    assert finding.mend == "systemd-tmpfiles --create gpuwarden.conf"


def test_an_administrators_tmpfiles_go_before_ours(made: Made) -> None:
    made.write(OUR_TMPFILES, "d /run/a 0755 root root -\n")
    made.write("/etc/tmpfiles.d/gpuwarden.conf", "d /run/a 0700 root root -\n")
    found = access.read(made.node())
    assert [entry.mode for entry in found.wanted] == [0o700]


def test_folders_that_are_closed_to_this_user_are_unknown() -> None:
    finding = by_name(access.judge(facts(found=[Absence.DENIED])))["permissions of folders"]
    assert (finding.verdict, finding.mend) == (Verdict.UNKNOWN, AS_ROOT)
    assert verdicts(access.judge(facts(tmpfiles="", wanted=[], found=[])))[
        "permissions of folders"
    ] is (Verdict.UNKNOWN)


def test_a_configuration_that_others_may_write_is_wrong(made: Made) -> None:
    made.write("/etc/passwd", ME)
    made.write("/etc/group", f"root:x:{os.getgid()}:\n")
    for name in ("gpuwarden.toml", "conf.d/10-site.toml"):
        made.write(f"/etc/gpuwarden/{name}", "").chmod(0o644)
    name = "permissions of the configuration"
    assert verdicts(access.examine(made.node()))[name] is Verdict.GOOD
    (made.root / "etc/gpuwarden/conf.d/10-site.toml").chmod(0o666)
    finding = by_name(access.examine(made.node()))[name]
    assert finding.verdict is Verdict.WRONG
    assert finding.found == "/etc/gpuwarden/conf.d/10-site.toml is root:root 0666"
    assert "chmod go-w /etc/gpuwarden/conf.d/10-site.toml" in finding.mend


@pytest.mark.parametrize(
    ("owner", "group", "mode", "verdict"),
    [
        ("root", "root", 0o666, Verdict.GOOD),
        ("root", "video", 0o660, Verdict.GOOD),
        ("root", "root", 0o660, Verdict.WRONG),
        ("root", "video", 0o606, Verdict.WRONG),
        ("gpuwarden-worker", "root", 0o600, Verdict.GOOD),
    ],
)
def test_devices_are_judged_as_the_workers_user_meets_them(
    owner: str, group: str, mode: int, verdict: Verdict
) -> None:
    device = Entry("/dev/nvidia0", owner, group, mode, is_folder=False)
    assert verdicts(access.judge(facts(devices=[device])))["devices for the workers"] is verdict


def test_devices_are_opened_by_their_group_but_never_by_roots() -> None:
    mends = []
    for group in ("render", "root"):
        device = Entry("/dev/nvidia0", "root", group, 0o660, is_folder=False)
        mends.append(by_name(access.judge(facts(devices=[device])))["devices for the workers"].mend)
    assert mends[0].startswith("adduser gpuwarden-worker render")
    assert mends[1].startswith("set NVreg_DeviceFileMode=0666")


def test_devices_are_those_of_the_plans_cards(made: Made) -> None:
    for name in ("nvidia0", "nvidia1", "nvidiactl"):
        made.write(f"/dev/{name}", "").chmod(0o666)
    found = access.read(made.node(plan=plan()))
    assert [entry.path for entry in found.devices] == ["/dev/nvidiactl", "/dev/nvidia0"]
    name = "devices for the workers"
    assert verdicts(access.judge(facts(simulated=True)))[name] is Verdict.NOT_APPLICABLE
