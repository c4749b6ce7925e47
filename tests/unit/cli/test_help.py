# SPDX-License-Identifier: Apache-2.0
"""Every help text teaches by example, and the examples are right."""

import argparse
import re
import shlex

import pytest

from gpuwarden.cli.about import ABOUT, ACTIONS
from gpuwarden.cli.examples import FIRST, OF
from gpuwarden.cli.main import COMMANDS, parse, tree

EVERY = [line for examples in (FIRST, *OF.values()) for line, _ in examples]


def subparser(name: str) -> argparse.ArgumentParser:
    parser, _ = tree(COMMANDS)
    (actions,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    found: argparse.ArgumentParser = actions.choices[name]
    return found


def test_every_command_has_examples_and_says_what_it_is_for() -> None:
    assert OF.keys() == COMMANDS.keys() == ABOUT.keys()
    assert all(1 <= len(examples) <= 3 for examples in OF.values())


@pytest.mark.parametrize("example", EVERY)
def test_an_example_is_understood(example: str) -> None:
    for part in re.split(r" (?:\||&&) ", example):
        program, *words = shlex.split(part)
        if program == "gpuwarden":
            assert parse(words)[1].command == words[0]
        else:
            assert program == "jq"


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_a_help_text_fits_on_80_columns(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = (subparser(name) if name else tree([])[0]).format_help()
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert "examples:\n" in text
    assert text.rstrip().endswith("3 service not reachable")


@pytest.mark.parametrize("name", list(ACTIONS))
def test_every_action_is_one_that_the_command_takes(name: str) -> None:
    usage = subparser(name).format_usage() + str(subparser(name).format_help())
    for written, _ in ACTIONS[name]:
        assert re.search(rf"\b{written.split()[0]}\b", usage.partition("actions:")[0]), written
