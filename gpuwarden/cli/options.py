# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any


def add_json(parser: argparse.ArgumentParser) -> None:
    """The option that every command has."""
    parser.add_argument("--json", action="store_true", help="for scripts: print JSON")


def understood_by(understand: Callable[[list[str]], object]) -> type[argparse.Action]:
    """An action that keeps as ``asked`` what a command's free words mean; anything else is bad use.

    :param understand: ValueError: why they mean nothing.
    """

    class Words(argparse.Action):
        def __call__(
            self,
            parser: argparse.ArgumentParser,
            namespace: argparse.Namespace,
            values: str | Sequence[Any] | None,
            option_string: str | None = None,
        ) -> None:
            try:
                namespace.asked = understand([str(value) for value in values or ()])
            except ValueError as error:
                parser.error(str(error))

    return Words
