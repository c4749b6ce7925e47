# SPDX-License-Identifier: Apache-2.0
"""What a model's worker compiles with, on machines made file by file."""

from typing import Any

import pytest

from gpuwarden.config import Configuration
from gpuwarden.doctor import compiling
from gpuwarden.doctor.findings import Verdict
from gpuwarden.doctor.node import Node
from tests.unit.doctor.machine import WORKER_UNIT, Made, by_name, plan, unit, verdicts

MOUNTS = "/dev/sda1 / ext4 rw,relatime 0 0\n/dev/sda2 /var ext4 rw,relatime 0 0\n"
ALL_GOOD = {
    "C compiler": Verdict.GOOD,
    "headers of the workers' interpreter": Verdict.GOOD,
    "compiled code": Verdict.GOOD,
}


def node(
    made: Made,
    *,
    engine: str = "transformers",
    python: str = "/opt/models/bin/python",
    environment: str = "HOME=/x",
    is_root: bool = True,
    **options: Any,
) -> Node:
    workers = {"engine": engine, "python": python, "options": {"path": "/srv/m", **options}}
    return made.node(
        configuration=Configuration.model_validate({"workers": workers}),
        plan=plan(),
        units={WORKER_UNIT: unit(environment=environment)},
        is_root=is_root,
    )


@pytest.fixture
def equipped(made: Made) -> Made:
    """One that has all of it."""
    made.write("/usr/bin/gcc", "")
    made.write("/opt/models/include/python3.12/Python.h", "")
    made.write("/proc/self/mounts", MOUNTS)
    return made


def test_a_machine_that_has_it_all(equipped: Made) -> None:
    assert verdicts(compiling.examine(node(equipped))) == ALL_GOOD


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"engine": "echo"}, "the engine is echo"),
        ({"compile": "none"}, "compile is none"),
        ({"device": "cpu"}, "on the CPU"),
    ],
)
def test_where_nothing_is_compiled_nothing_is_wanted(
    made: Made, changes: dict[str, Any], found: str
) -> None:
    findings = compiling.examine(node(made, **changes))
    assert {each.verdict for each in findings} == {Verdict.NOT_APPLICABLE}
    assert all(found in each.found for each in findings)


def test_it_is_a_doubt_while_the_worker_goes_on_without_and_wrong_where_it_does_not(
    made: Made,
) -> None:
    made.write("/proc/self/mounts", MOUNTS.replace("/var ext4 rw", "/var ext4 rw,noexec"))
    asked = verdicts(compiling.examine(node(made, compile="all")))
    assert set(asked.values()) == {Verdict.WRONG}
    found = by_name(compiling.examine(node(made)))
    assert {each.verdict for each in found.values()} == {Verdict.DOUBTFUL}
    assert found["C compiler"].mend == "apt install gcc libc6-dev"
    assert "python3-dev" in found["headers of the workers' interpreter"].mend
    assert found["compiled code"].found == (
        "/var/cache/gpuwarden/worker lies on /var, which is mounted noexec"
    )
    assert found["compiled code"].mend.startswith("mount -o remount,exec /var  #")


def test_a_compiler_that_the_unit_names(equipped: Made) -> None:
    gone = node(equipped, environment='HOME=/x CC=/opt/cc/bin/cc "X=a b"')
    assert verdicts(compiling.examine(gone))["C compiler"] is Verdict.DOUBTFUL
    equipped.write("/opt/cc/bin/cc", "")
    assert by_name(compiling.examine(gone))["C compiler"].found == "/opt/cc/bin/cc"
    elsewhere = node(equipped, environment="PATH=/opt/cc/bin")
    assert verdicts(compiling.examine(elsewhere))["C compiler"] is Verdict.DOUBTFUL


def test_another_folder_that_the_unit_names(equipped: Made) -> None:
    equipped.write("/proc/self/mounts", f"{MOUNTS}/dev/sdb /fast xfs ro 0 0\n")
    there = node(equipped, environment="TORCHINDUCTOR_CACHE_DIR=/fast/compiled")
    assert "/fast, which is mounted ro" in by_name(compiling.examine(there))["compiled code"].found


def test_an_environment_has_the_headers_of_what_it_was_made_from(equipped: Made) -> None:
    equipped.write("/srv/venv/pyvenv.cfg", "home = /usr/bin\nversion = 3.11.2\n")
    venv = node(equipped, python="/srv/venv/bin/python")
    name = "headers of the workers' interpreter"
    assert verdicts(compiling.examine(venv))[name] is Verdict.DOUBTFUL
    equipped.write("/usr/include/python3.11/Python.h", "")
    assert by_name(compiling.examine(venv))[name].found == "/usr/include/python3.11/Python.h"


def test_what_lies_in_a_home_folder_is_seen_by_root_alone(equipped: Made) -> None:
    at_home = node(equipped, python="/home/a/miniconda3/bin/python", is_root=False)
    name = "headers of the workers' interpreter"
    assert verdicts(compiling.examine(at_home))[name] is Verdict.UNKNOWN


def test_without_a_list_of_mounts_it_is_not_known(equipped: Made) -> None:
    (equipped.root / "proc/self/mounts").unlink()
    assert verdicts(compiling.examine(node(equipped)))["compiled code"] is Verdict.UNKNOWN
