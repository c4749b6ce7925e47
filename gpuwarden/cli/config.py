# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden config check``: every problem of the configuration, with file and line."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from gpuwarden import names
from gpuwarden.cli.exits import CommandError, Exit
from gpuwarden.cli.options import add_json
from gpuwarden.config import ConfigurationError, load_configuration
from gpuwarden.config.loader import configuration_files
from gpuwarden.config.problems import Problem
from gpuwarden.guard.node import node_rules


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``check [FILE] [--json]``."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = actions.add_parser("check", help="print every problem, with file and line")
    check.add_argument(
        "file",
        metavar="FILE",
        nargs="?",
        type=Path,
        help=f"check this file alone, not {names.CONFIG_FILE} with {names.CONFIG_DIRECTORY}/*.toml",
    )
    add_json(check)


def run(arguments: argparse.Namespace) -> int:
    """Check and print; 0 when all is well, 1 with problems."""
    file: Path | None = arguments.file
    if file is not None and not file.exists():
        raise CommandError(f"{file}: no such file", Exit.BAD_USE)
    path = names.CONFIG_FILE if file is None else file
    directory = names.CONFIG_DIRECTORY if file is None else None
    files, _ = configuration_files(path, directory)
    problems: tuple[Problem, ...] = ()
    try:
        load_configuration(path, directory, node_rules())
    except ConfigurationError as error:
        problems = error.problems
    print(_as_json(files, problems) if arguments.json else _as_text(files, problems, path))
    return Exit.WRONG if problems else Exit.GOOD


def _as_json(files: list[Path], problems: tuple[Problem, ...]) -> str:
    return json.dumps(
        {
            "ok": not problems,
            "files": [str(file) for file in files],
            "problems": [{**asdict(each), "file": str(each.file)} for each in problems],
        },
        indent=2,
    )


def _as_text(files: list[Path], problems: tuple[Problem, ...], path: Path) -> str:
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        return "\n".join([*(str(problem) for problem in problems), f"{count} found"])
    if not files:
        return f"good: {path} is not there, so everything has its default"
    return f"good: {', '.join(str(file) for file in files)}"
