# SPDX-License-Identifier: Apache-2.0
"""What holds for every check: no facts break it, and what can't be seen is never wrong."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuwarden.doctor import (
    access,
    bus,
    compiling,
    driver,
    kernel,
    memory,
    placement,
    processors,
    rivals,
    service,
    storage,
    tuner,
)
from gpuwarden.doctor.checks import CHECKS, Check, examine
from gpuwarden.doctor.commands import run
from gpuwarden.doctor.findings import AS_ROOT, Finding, Question, Verdict
from gpuwarden.doctor.node import look
from gpuwarden.doctor.places import Absence, text_of, unread
from gpuwarden.doctor.processes import own_pages
from tests.unit.doctor.machine import Made

Judge = Callable[[Any], Sequence[Finding]]
JUDGES: list[tuple[Judge, Any]] = [
    (access.judge, access.AccessFacts),
    (bus.judge, bus.BusFacts),
    (compiling.judge, compiling.CompilingFacts),
    (driver.judge, driver.DriverFacts),
    (kernel.judge, kernel.KernelFacts),
    (memory.judge, memory.MemoryFacts),
    (placement.judge, list[placement.WorkerFacts]),
    (processors.judge, processors.ProcessorFacts),
    (rivals.judge, rivals.RivalFacts),
    (service.judge, service.ServiceFacts),
    (storage.judge, storage.StorageFacts),
    (tuner.judge, tuner.TunerFacts),
]
# Words that the kernel's files hold, so that more than the first branch is met.
WORDS = st.sampled_from(
    ["0", "-1", "1", "always [never]", "[always]", "fifo:10", "gpu", "Y", "mq-deadline [bfq]",
     "Kernel Module  580.1", "/dev/sda1 /srv xfs rw 0 0", "systemd 252", "nv-hostengine",
     "F\n/dev/sda2 x 1 0 -2", "max", "preferred", "bind", "prefer:0", "active", "failed",
     "HugePages_Total: 9\nHugePages_Free: 9\nHugepagesize: 2048 kB", "DMA", "", "degraded"]
)  # fmt: skip
TEXTS = WORDS | st.text(max_size=30)


@pytest.mark.parametrize(("judge", "facts"), JUDGES, ids=lambda each: each.__module__)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_no_facts_break_a_judge(judge: Judge, facts: Any, data: st.DataObject) -> None:
    st.register_type_strategy(str, TEXTS)
    try:
        drawn = data.draw(st.from_type(facts))
    finally:
        st.register_type_strategy(str, st.text())
    for finding in judge(drawn):
        assert finding.name
        assert finding.wanted is not None
        assert finding.why
        assert finding.mend or finding.verdict not in (Verdict.WRONG, Verdict.DOUBTFUL)


@given(TEXTS)
def test_no_numa_maps_break_their_reader(text: str) -> None:
    assert own_pages(text).share_on(0) >= 0


def test_there_is_a_judge_for_every_check() -> None:
    assert len(JUDGES) == len(CHECKS)


def test_an_empty_machine_is_told_of_and_not_crashed_on(made: Made) -> None:
    told = examine(made.node(is_root=False))
    assert {each.subject for each in told} == {
        check.subject for check in CHECKS if check.subject != "placement"
    }
    wrong = {each.finding.name for each in told if each.finding.verdict is Verdict.WRONG}
    assert wrong == {"NVIDIA driver", "control groups", "systemd"}


def test_this_machine_is_told_of() -> None:
    told = examine(look())
    assert len(told) > 20


def test_a_machine_in_a_folder_is_looked_at_there(made: Made) -> None:
    made.write("/etc/gpuwarden/gpuwarden.toml", "[workers]\nmax_batch = 0\n")
    node = look(made.root)
    assert node.configuration is None
    assert f"{made.root}/etc/gpuwarden/gpuwarden.toml" in node.configuration_problem
    assert node.plan_problem.startswith(f"{made.root}/run/gpuwarden/placement/plan.json")


def test_a_kernel_that_fails_makes_one_subject_unknown_and_the_others_go_on(made: Made) -> None:
    def fail(_: object) -> list[Finding]:
        raise OSError(5, "Input/output error", "/sys/x")

    good = Question("good", "x", "y").good("z")
    told = examine(made.node(), [Check("disk", fail), Check("rest", lambda _: [good])])
    assert told[0].finding.verdict is Verdict.UNKNOWN
    assert told[0].finding.found == "/sys/x: Input/output error"
    assert told[1].finding is good


def test_a_file_that_can_not_be_read_says_why(tmp_path: Path) -> None:
    assert text_of(tmp_path / "none") is Absence.MISSING
    (tmp_path / "file").write_text(" x\n")
    assert text_of(tmp_path / "file") == "x"
    assert text_of(tmp_path / "file" / "below") is Absence.MISSING
    with pytest.raises(IsADirectoryError):
        text_of(tmp_path)


def test_a_program_is_waited_for_no_longer_than_its_deadline() -> None:
    assert run(["echo", "x"]).text == "x\n"
    assert "not installed" in run(["no-such-program"]).problem
    assert "did not answer within" in run(["sleep", "60"], deadline_seconds=0.05).problem
    assert run(["sh", "-c", "echo broken >&2; exit 3"]).problem == "broken"
    assert run(["false"]).problem == "status 1"


def test_a_denied_file_is_unknown_with_the_way_to_know() -> None:
    finding = unread(Question("x", "y", "z"), Absence.DENIED, "/p")
    assert (finding.verdict, finding.mend) == (Verdict.UNKNOWN, AS_ROOT)
