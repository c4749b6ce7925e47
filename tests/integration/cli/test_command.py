# SPDX-License-Identifier: Apache-2.0
import json
import subprocess
import sys
from pathlib import Path

import pytest

from gpuwarden import __version__
from gpuwarden.config.reference import SHIPPED_FILE

ROOT = Path(__file__).parents[3]
RUN_MAIN = "import sys; from gpuwarden.cli.main import main; sys.exit(main())"


def gpuwarden(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RUN_MAIN, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=ROOT,
    )


@pytest.mark.parametrize(
    "words", [[], ["foo"], ["config"], ["config", "show"], ["version", "x"], ["status", "--yaml"]]
)
def test_bad_use_is_exit_2_with_one_line_that_says_where_to_look(words: list[str]) -> None:
    finished = gpuwarden(*words)
    assert finished.returncode == 2
    assert finished.stderr.startswith("gpuwarden: ")
    assert finished.stderr.endswith("--help)\n")
    assert finished.stderr.count("\n") == 1
    assert finished.stdout == ""


@pytest.mark.parametrize("words", [["--help"], ["config", "check", "--help"], ["status", "--help"]])
def test_help_is_good(words: list[str]) -> None:
    finished = gpuwarden(*words)
    assert finished.returncode == 0
    assert "usage: gpuwarden" in finished.stdout


def test_version() -> None:
    assert gpuwarden("version").stdout == f"gpuwarden {__version__}\n"
    assert json.loads(gpuwarden("version", "--json").stdout) == {"version": __version__}


def test_the_version_is_told_without_loading_what_other_commands_need() -> None:
    script = f"import sys; from gpuwarden.cli.main import main; main(['version']); {LOADED}"
    finished = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert finished.stdout.splitlines()[1:] == ["[]"]


LOADED = "print([name for name in ('pydantic', 'asyncio', 'subprocess') if name in sys.modules])"


def test_config_check_of_a_good_file() -> None:
    finished = gpuwarden("config", "check", SHIPPED_FILE)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout == f"good: {SHIPPED_FILE}\n"
    assert json.loads(gpuwarden("config", "check", "--json", SHIPPED_FILE).stdout) == {
        "ok": True,
        "files": [str(SHIPPED_FILE)],
        "problems": [],
    }


def test_config_check_prints_every_problem(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text("[workers]\nmax_batsh = 4\n[log]\nlevel = 'loud'\n")
    finished = gpuwarden("config", "check", file)
    assert (finished.returncode, finished.stderr) == (1, "")
    first, second, last = finished.stdout.splitlines()
    assert first.startswith(
        f"{file}:2: workers.max_batsh: found an unknown key; did you mean max_batch?; allowed: "
    )
    assert second == (
        f'{file}:4: log.level: found "loud" (a string); '
        'allowed: "debug", "info", "warning" or "error"'
    )
    assert last == "2 problems found"
    finished = gpuwarden("config", "check", "--json", file)
    assert finished.returncode == 1
    document = json.loads(finished.stdout)
    assert document["ok"] is False
    assert document["problems"][1] == {
        "file": str(file),
        "line": 4,
        "key": "log.level",
        "found": '"loud" (a string)',
        "allowed": '"debug", "info", "warning" or "error"',
        "hint": "",
    }


def test_config_check_of_no_file_is_bad_use_and_of_a_directory_is_wrong(tmp_path: Path) -> None:
    missing = gpuwarden("config", "check", tmp_path / "none.toml")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "none.toml: no such file" in missing.stderr
    directory = gpuwarden("config", "check", tmp_path)
    assert directory.returncode == 1
    assert directory.stdout.startswith(f"{tmp_path}: found a directory; allowed: a readable")


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    file = tmp_path / "many.toml"
    file.write_text("".join(f"[t{n}]\n" for n in range(3000)))
    pipe = '"$0" -c "$1" config check "$2" | head -n 1'
    finished = subprocess.run(
        ["bash", "-c", pipe, sys.executable, RUN_MAIN, file],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=ROOT,
    )
    assert finished.stderr == ""
    assert finished.stdout.startswith(f"{file}:1: t0: found an unknown table")
