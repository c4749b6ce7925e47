# SPDX-License-Identifier: Apache-2.0
"""The doctor's screen: what is bad first, in full; what is good in a line."""

from pathlib import Path

import pytest

from gpuwarden.cli.doctor_screen import screen
from gpuwarden.doctor.checks import Told
from gpuwarden.doctor.findings import Finding, Question
from gpuwarden.doctor.node import Node

NODE = Node(root=Path("/nowhere"), is_root=True)
QUESTION = Question("swap", "none", "images must not reach a disk")


def told(*findings: Finding) -> list[Told]:
    return [Told("memory", finding) for finding in findings]


def test_problems_then_doubts_then_a_line_of_what_is_good() -> None:
    findings = told(
        QUESTION.about("a").good("none"),
        QUESTION.about("b").doubtful("some", "swapoff -a  # or so"),
        QUESTION.about("c").unknown("closed", "run as root"),
        QUESTION.about("d").wrong("much", "swapoff -a"),
        QUESTION.about("e").good("none"),
        QUESTION.about("f").not_applicable("no such thing"),
    )
    assert screen(NODE, findings, everything=False) == [
        "This node will not serve well: 1 wrong, 1 doubtful, 1 unknown, 2 good, 1 not applicable",
        "",
        "Wrong (1)",
        "  swap of d",
        "    found   much",
        "    wanted  none",
        "    why     images must not reach a disk",
        "    mend    swapoff -a",
        "",
        "Doubtful (1)",
        "  swap of b",
        "    found   some",
        "    wanted  none",
        "    why     images must not reach a disk",
        "    mend    swapoff -a  # or so",
        "",
        "Unknown (1)",
        "  swap of c  closed (run as root)",
        "",
        "Good (2)",
        "  swap of a, swap of e",
        "",
        "Not applicable (1)",
        "  swap of f",
        "",
        "Everything, with why: gpuwarden doctor --all",
    ]


@pytest.mark.parametrize(
    ("findings", "words"),
    [
        (told(QUESTION.good("none")), "This node is fit to serve: 1 good"),
        (told(QUESTION.doubtful("x", "y")), "This node can serve, with doubts: 1 doubtful"),
    ],
)
def test_the_first_line_is_the_whole_answer(findings: list[Told], words: str) -> None:
    assert screen(NODE, findings, everything=False)[0] == words


def test_everything_is_told_by_subject_with_its_reason() -> None:
    lines = screen(NODE, told(QUESTION.good("none")), everything=True)
    assert lines == [
        "This node is fit to serve: 1 good",
        "",
        "Good (1)",
        "  [memory]",
        "  swap",
        "    found   none",
        "    wanted  none",
        "    why     images must not reach a disk",
    ]


def test_a_command_is_never_folded_and_nothing_repaints_a_terminal() -> None:
    mend = "echo " + "word " * 40
    lines = screen(NODE, told(QUESTION.wrong("a\x1b[2Jb " + "found " * 40, mend)), everything=False)
    assert f"    mend    {mend}" in lines
    assert all("\x1b" not in line for line in lines)
    assert max(len(line) for line in lines if "mend" not in line) <= 100
