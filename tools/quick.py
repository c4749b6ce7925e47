# SPDX-License-Identifier: Apache-2.0
"""The dev loop: python -m tools.quick [--all].

Lint, types and import contracts of everything, and the unit tests that a change can touch
(tools/affected.py), all at once. What was green with the same bytes isn't run again; ``--all`` runs
it all the same. Exit 1 if anything is wrong.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from tools.affected import Tree, look_at, tracked

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
WORK = ROOT / "build" / "quick"
GREEN = WORK / "green.json"
TESTS = "tests/unit/"
# Beyond so many files a second process beside the type checker is worth its start.
FILES_ALONE = 40
# States of a file's needs that are remembered: a change that is taken back costs nothing.
REMEMBERED = 8
NOT_GREEN = re.compile(r"^(?:FAILED|ERROR) (\S+?\.py)", re.MULTILINE)
CHECKS = {
    "ruff": ["ruff", "check", "--quiet", "."],
    "format": ["ruff", "format", "--check", "--quiet", "."],
    "types": ["mypy"],
    "imports": ["lint-imports"],
    "worker": [
        *("vermin", "--quiet", "--no-tips", "--eval-annotations", "--target=3.9-"),
        *("--violations", "gpuwarden/worker"),
    ],
}


class Step:
    """A program that runs beside the others; what it prints is kept."""

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self._output = WORK / f"{name}.txt"
        with self._output.open("wb") as file:
            self._process = subprocess.Popen(
                [str(BIN / command[0]), *command[1:]],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def finish(self) -> bool:
        """Wait, and show what was wrong."""
        is_good = self._process.wait() == 0
        print(f"{self.name:8} {'good' if is_good else 'WRONG'}", flush=True)
        if not is_good:
            print(self.text, flush=True)
        return is_good

    @property
    def text(self) -> str:
        """What it has printed."""
        return self._output.read_text(encoding="utf-8", errors="replace")


def fingerprints() -> dict[str, str]:
    """Of each file of unit tests, what it depends on."""
    names = tracked(ROOT)
    tree = Tree(look_at(ROOT, names, WORK / "sources.json"))
    tests = [name for name in names if re.fullmatch(rf"{TESTS}(.*/)?test_[^/]+\.py", name)]
    return {name: tree.fingerprint(name) for name in tests}


def read_green() -> dict[str, list[str]]:
    """By file, what it depended on when it was green, the last first."""
    return dict(json.loads(GREEN.read_text())) if GREEN.is_file() else {}


def remember(green: dict[str, list[str]], wanted: dict[str, str], good: Iterable[str]) -> None:
    """Keep that these files were green with what they depend on now."""
    for name in good:
        former = [each for each in green.get(name, []) if each != wanted[name]]
        green[name] = [wanted[name], *former][:REMEMBERED]
    GREEN.write_text(json.dumps({name: green[name] for name in wanted if name in green}))


def pytest(files: Iterable[str]) -> Step:
    """The tests of these files."""
    chosen = list(files)
    spread = ["-n", "2", "--dist", "loadfile"] if len(chosen) > FILES_ALONE else []
    return Step("tests", ["python", "-m", "pytest", "-q", *spread, *chosen])


def main() -> int:
    """Run what is needed, and remember what was green."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--all", action="store_true", help="all unit tests, whatever was green")
    run_all = parser.parse_args().all
    WORK.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    steps = [Step(name, command) for name, command in CHECKS.items()]
    wanted = fingerprints()
    green = {} if run_all else read_green()
    stale = [name for name, needs in wanted.items() if needs not in green.get(name, [])]
    tests = pytest(stale) if stale else None
    good = [step.finish() for step in steps]
    if tests is not None:
        good.append(tests.finish())
        not_green = set(NOT_GREEN.findall(tests.text))
        if good[-1] or not_green:  # else it has not even begun
            remember(green, wanted, [name for name in stale if name not in not_green])
    took = time.monotonic() - began
    print(f"{len(stale)} of {len(wanted)} files of unit tests were touched; {took:.1f} s")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
