# SPDX-License-Identifier: Apache-2.0
"""Exit codes, and the errors that end a command with one of them."""

from enum import IntEnum


class Exit(IntEnum):
    """What a command's exit status tells a script."""

    GOOD = 0
    WRONG = 1
    BAD_USE = 2
    UNREACHABLE = 3


class CommandError(Exception):
    """Ends the command: the text goes to stderr, ``code`` to the caller."""

    def __init__(self, message: str, code: Exit) -> None:
        super().__init__(message)
        self.code = code
