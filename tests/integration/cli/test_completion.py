# SPDX-License-Identifier: Apache-2.0
"""Tab in bash, zsh and fish, with the files that the package installs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpuwarden.control.snapshot import SnapshotWriter
from tests.integration.cli.test_status import two_workers
from tools.completions import PLACES, write

ROOT = Path(__file__).parents[3]
COMMAND = """\
#!{python}
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from gpuwarden import names
names.PLAN_FILE = Path({plan!r})
names.RUN_DIRECTORY = Path({plan!r}).parent
from gpuwarden.cli.main import main
sys.exit(main())
"""
ASK = {
    "bash": """\
source {script}
COMP_LINE={line!r} COMP_POINT={point} COMP_TYPE=9
_python_argcomplete_gpuwarden gpuwarden
printf '%s\\n' "${{COMPREPLY[@]}}"
""",
    "zsh": """\
autoload -U compinit && compinit -u -D
source {script}
_describe() {{ print -rl -- "${{(@P)2}}" }}
BUFFER={line!r} CURSOR={point} words=(gpuwarden)
_python_argcomplete_gpuwarden
""",
    "fish": "source {script}; complete -C {line!r}",
}
ARGUMENTS = {"bash": ["--norc", "-c"], "zsh": ["-f", "-c"], "fish": ["--no-config", "-c"]}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command and the shells' files, on a node with two workers."""
    folder = tmp_path_factory.mktemp("installed")
    write(folder)
    SnapshotWriter(folder / "plan.json", "placement", 0).publish(two_workers())
    command = folder / "bin" / "gpuwarden"
    command.parent.mkdir()
    plan = str(folder / "plan.json")
    command.write_text(COMMAND.format(python=sys.executable, root=str(ROOT), plan=plan))
    command.chmod(0o755)
    return folder


def offered(installed: Path, shell: str, line: str) -> list[str]:
    """The words that the shell offers for what is typed so far."""
    script = ASK[shell].format(script=installed / PLACES[shell], line=line, point=len(line))
    finished = subprocess.run(
        [shell, *ARGUMENTS[shell], script],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=installed,
        env={**os.environ, "PATH": f"{installed / 'bin'}:{os.environ['PATH']}", "HOME": "/root"},
    )
    assert finished.stderr == ""
    # fish parts a word and its explanation by a tab, zsh by a colon.
    return [
        row.replace("\t", ":").partition(":")[0].strip() for row in finished.stdout.splitlines()
    ]


@pytest.mark.parametrize("shell", list(PLACES))
def test_a_shell_completes_commands_actions_and_workers(shell: str, installed: Path) -> None:
    assert set(offered(installed, shell, "gpuwarden wor")) == {"workers"}
    assert {"start", "stop", "drain"} <= set(offered(installed, shell, "gpuwarden workers "))
    assert offered(installed, shell, "gpuwarden workers drain ") == ["0", "1"]
    assert "--memory" in offered(installed, shell, "gpuwarden workers --me")


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("gpuwarden thermal override 0 ", ["alert", "critical"]),
        ("gpuwarden thermal override 0 alert 6", ["600"]),
        ("gpuwarden logs --event worker-en", ["worker-ended"]),
        ("gpuwarden logs --worker ", ["0", "1"]),
        ("gpuwarden thermal release ", ["0", "1"]),
        ("gpuwarden simulate --card H", ["H100", "H200"]),
        ("gpuwarden config ", ["check"]),
        ("gpuwarden workers rolling-restart ", []),
        ("gpuwarden reap ", []),  # nobody to ask
        ("gpuwarden jobs show ", []),
    ],
)
def test_what_is_offered(line: str, wanted: list[str], installed: Path) -> None:
    found = offered(installed, "bash", line)
    assert [each for each in found if each] == wanted
