# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden logs`` becomes journalctl, with words that are all its own or checked."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
RUN_MAIN = "import sys; from gpuwarden.cli.main import main; sys.exit(main())"
JOURNALCTL = """#!/bin/sh
printf '%s\\n' "$@"
exit 7
"""


@pytest.fixture
def logs(tmp_path: Path) -> "Logs":
    (tmp_path / "journalctl").write_text(JOURNALCTL)
    (tmp_path / "journalctl").chmod(0o755)
    return Logs(tmp_path)


class Logs:
    """The command, with a journalctl that prints what it is given."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-c", RUN_MAIN, "logs", *words],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd=ROOT,
            env=os.environ | {"PATH": f"{self.path}"},
        )


@pytest.mark.parametrize(
    ("words", "given"),
    [
        ([], "--no-pager --lines=50 --unit=medgemma-*"),
        (["-f", "-x", "-n", "9"], "--no-pager --lines=9 --follow --catalog --unit=medgemma-*"),
        (["--json"], "--no-pager --lines=50 --output=json --unit=medgemma-*"),
        (
            ["--worker", "3"],
            "--no-pager --lines=50 SYSLOG_IDENTIFIER=gpuwarden WORKER=3 "
            "+ _SYSTEMD_UNIT=medgemma-worker@3.service "
            "+ _PID=1 UNIT=medgemma-worker@3.service",
        ),
        (
            ["--gpu", "1"],
            "--no-pager --lines=50 SYSLOG_IDENTIFIER=gpuwarden GPU=1 "
            "+ _SYSTEMD_UNIT=medgemma-thermal@1.service "
            "+ _PID=1 UNIT=medgemma-thermal@1.service "
            "+ _SYSTEMD_UNIT=medgemma-scan@1.service "
            "+ _PID=1 UNIT=medgemma-scan@1.service",
        ),
        (
            ["--event", "xid", "--gpu", "1"],
            "--no-pager --lines=50 SYSLOG_IDENTIFIER=gpuwarden GPUWARDEN_EVENT=xid GPU=1",
        ),
    ],
)
def test_what_is_asked_of_journalctl(logs: Logs, words: list[str], given: str) -> None:
    done = logs.run(*words)
    assert done.stdout.split() == given.split()
    assert done.returncode == 7  # journalctl's own


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--worker", "-1"], "a worker is named by its number, 0 or more"),
        (["--worker", "0; reboot"], "a worker is named by its number, 0 or more"),
        (["--gpu", "../0"], "a card is named by its index, 0 or more"),
        (["--event", "worker-stat"], "there is no event 'worker-stat'; there are: worker-state"),
        (["--event", "MESSAGE=x"], "there is no event 'MESSAGE=x'; there are: "),
        (["--lines", "all"], "LINES is a whole number"),
        (["--worker", "0", "--gpu", "0"], "not allowed with"),
        (["medgemma-guard"], "unrecognized arguments"),
    ],
)
def test_bad_use_is_exit_2_and_journalctl_is_not_run(
    logs: Logs, words: list[str], error: str
) -> None:
    done = logs.run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert error in done.stderr


def test_a_host_without_journalctl_is_told(tmp_path: Path) -> None:
    done = Logs(tmp_path).run()
    assert done.returncode == 3
    assert "journalctl can't be run (No such file or directory)" in done.stderr


def test_the_hosts_journalctl_takes_it(tmp_path: Path) -> None:
    """Not what it finds: a container has no journal."""
    (tmp_path / "journalctl").symlink_to("/usr/bin/journalctl")
    for words in (["--worker", "0"], ["--gpu", "0", "-x"], ["--event", "xid", "--json"]):
        done = Logs(tmp_path).run(*words)
        assert "Failed to add" not in done.stderr
        assert "option" not in done.stderr, done.stderr
