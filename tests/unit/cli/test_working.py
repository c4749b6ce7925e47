# SPDX-License-Identifier: Apache-2.0
"""A sign of life appears only where somebody looks, and leaves nothing behind."""

import os
import pty
import subprocess
import sys
from pathlib import Path

from gpuwarden.cli.working import working, working_text

ROOT = Path(__file__).parents[3]
WAITING = """\
import threading
from gpuwarden.cli import working
working.AFTER_SECONDS = 0.0
drawn = threading.Event()
text = working.working_text
def noting(*arguments):
    drawn.set()
    return text(*arguments)
working.working_text = noting
with working.working("waiting for somebody"):
    with working.working("waiting for somebody else"):
        drawn.wait(20)
print("done")
"""


def test_on_a_terminal_it_is_drawn_once_and_erased() -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING], stdout=theirs, stderr=theirs, cwd=ROOT
    )
    os.close(theirs)
    text = ""
    while "done\r\n" not in text:
        text += os.read(ours, 1 << 16).decode()
    process.wait(20)
    os.close(ours)
    assert "| waiting for somebody ... 0 s" in text
    assert "somebody else" not in text
    assert text.endswith("\r\x1b[Kdone\r\n")


def test_off_a_terminal_nothing_is_drawn() -> None:
    finished = subprocess.run(
        [sys.executable, "-c", WAITING.replace("drawn.wait(20)", "pass")],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        timeout=60,
    )
    assert (finished.stdout, finished.stderr) == ("done\n", "")


def test_what_fails_meanwhile_fails_as_it_is() -> None:
    try:
        with working("something"):
            raise ValueError("as it is")
    except ValueError as error:
        assert str(error) == "as it is"


def test_the_line() -> None:
    assert working_text("simulating", 12.4, 5) == "/ simulating ... 12 s"
