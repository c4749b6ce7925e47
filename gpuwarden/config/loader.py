# SPDX-License-Identifier: Apache-2.0
"""From files to a Configuration: merge in order, check everything, blame file and line."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gpuwarden import names
from gpuwarden.config.explain import explain, names_key
from gpuwarden.config.models import Configuration
from gpuwarden.config.positions import KeyPath
from gpuwarden.config.problems import ConfigurationError, Problem, shown_key
from gpuwarden.config.rules import RULES, Rule
from gpuwarden.config.source import Source, read_source


def load_configuration(
    path: Path = names.CONFIG_FILE,
    directory: Path | None = names.CONFIG_DIRECTORY,
    rules: Sequence[Rule] = (),
) -> Configuration:
    """The configuration of the main file and the ``*.toml`` files of a directory.

    Files are merged by file name, the main file first: later keys win, tables are merged. What is
    not there means its defaults; a file that is there must be right, even where a later one wins.

    :param rules: what must hold besides, such as of the cards of this node.
    :raises ConfigurationError: with every problem of every file.
    """
    files, problems = configuration_files(path, directory)
    sources = [read_source(file) for file in files]
    problems += [problem for source in sources for problem in source.problems]
    faulty: set[KeyPath] = set()
    for source in sources:
        source_problems, paths = _check_alone(source)
        problems += source_problems
        faulty |= paths
    problems += _check_together(sources, faulty, path, (*RULES, *rules))
    if problems:
        order = {file: position for position, file in enumerate(files)}
        raise ConfigurationError(
            sorted(problems, key=lambda each: (order.get(each.file, -1), each.line or 0))
        )
    return Configuration.model_validate(merge(source.tables for source in sources))


def configuration_files(path: Path, directory: Path | None) -> tuple[list[Path], list[Problem]]:
    """The files that are there, in the order in which they are read.

    Hidden files are left out: editors put their locks and copies there.
    """
    files = [path] if _is_there(path) else []
    if directory is None:
        return files, []
    try:
        found = sorted(
            (entry for entry in directory.iterdir() if entry.suffix == ".toml"),
            key=lambda entry: entry.name,
        )
    except FileNotFoundError:
        return files, []
    except OSError as error:
        problem = Problem(
            directory, None, "", f"an error: {error.strerror}", "a readable directory of *.toml"
        )
        return files, [problem]
    return files + [entry for entry in found if not entry.name.startswith(".")], []


def _is_there(path: Path) -> bool:
    # A dangling link or a folder that can't be searched is no missing file: reading it says why.
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return True


def merge(documents: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """One document of many: tables are merged key by key, of anything else the last one wins."""
    merged: dict[str, Any] = {}
    for document in documents:
        for key, value in document.items():
            below = merged.get(key)
            if isinstance(below, dict) and isinstance(value, dict):
                merged[key] = merge([below, value])
            else:
                merged[key] = value
    return merged


def _check_alone(source: Source) -> tuple[list[Problem], set[KeyPath]]:
    """The problems of one file's keys and values, and the paths that have them."""
    try:
        Configuration.model_validate(source.tables)
    except ValidationError as error:
        problems, paths = [], set()
        for details in error.errors(include_url=False):
            if details["type"] == "default_factory_not_called":  # follows from another problem
                continue
            path: KeyPath = details["loc"][:-1] if names_key(details) else details["loc"]
            found, allowed, hint = explain(source.tables, path, details)
            line = source.line_of(path)
            problems.append(Problem(source.file, line, shown_key(path), found, allowed, hint))
            paths.add(path)
        return problems, paths
    return [], set()


def _check_together(
    sources: Sequence[Source], faulty: set[KeyPath], main_file: Path, rules: Sequence[Rule]
) -> list[Problem]:
    """The problems of settings that don't fit each other, blamed on the last of them written.

    Settings that are wrong in themselves are left out: they have their problem already.
    """
    good = merge(_without(source.tables, faulty) for source in sources)
    configuration = Configuration.model_validate(good)
    problems = []
    for conflict in (each for rule in rules for each in rule(configuration)):
        if any(key[: len(bad)] == bad for key in conflict.keys for bad in faulty):
            continue
        places = [
            (source, line, key)
            for source in sources
            for line, key in sorted((source.lines.get(key, 0), key) for key in conflict.keys)
            if line
        ]
        file, line, key = main_file, None, conflict.keys[0]
        if places:
            source, line, key = places[-1]
            file = source.file
        problems.append(Problem(file, line, shown_key(key), conflict.found, conflict.allowed))
    return problems


def _without(document: dict[str, Any], paths: set[KeyPath], at: KeyPath = ()) -> dict[str, Any]:
    """The document less the given keys (for what is in a list: less the whole list)."""
    cut = {tuple(takewhile(lambda part: isinstance(part, str), path)) for path in paths}
    kept = {}
    for key, value in document.items():
        if (*at, key) not in cut:
            kept[key] = _without(value, paths, (*at, key)) if isinstance(value, dict) else value
    return kept
