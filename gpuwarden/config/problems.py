# SPDX-License-Identifier: Apache-2.0
"""What is wrong with the configuration, told so that the operator can mend it at once."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path

from gpuwarden.text import one_line

SHOWN_CHARACTERS = 60  # of a value; the operator recognises it by its beginning


@dataclass(frozen=True)
class Problem:
    """One thing to mend.

    :param line: from 1; None where the file as a whole is meant.
    :param key: dotted path, empty where no key is meant.
    :param found: what stands there and, where it isn't obvious, what is wrong with it.
    :param allowed: what may stand there instead.
    :param hint: what was probably meant; may be empty.
    """

    file: Path
    line: int | None
    key: str
    found: str
    allowed: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else str(self.file)
        key = f"{self.key}: " if self.key else ""
        hint = f"; {self.hint}" if self.hint else ""
        return f"{one_line(place)}: {key}found {self.found}{hint}; allowed: {self.allowed}"


class ConfigurationError(Exception):
    """The configuration can't be used; ``problems`` holds every reason, in the files' order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def shown_key(path: Sequence[str | int]) -> str:
    """A key path as it would be written: ``workers.options."a b"``, ``workers.engine_path[0]``."""
    shown = ""
    for part in path:
        if isinstance(part, int):
            shown += f"[{part}]"
        else:
            bare = part.isascii() and part.replace("-", "_").isidentifier()
            shown += f"{'.' if shown else ''}{part if bare else quoted(part)}"
    return shown


def quoted(text: str) -> str:
    """A string as TOML writes it, shortened, on one line."""
    shortened = text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
    return one_line(json.dumps(shortened, ensure_ascii=False))


def shown_value(value: object) -> str:
    """A value with its TOML type: ``"fast" (a string)``, ``4.0 (a float)``."""
    if isinstance(value, str):
        return f"{quoted(value)} (a string)"
    if isinstance(value, bool):
        return f"{str(value).lower()} (a boolean)"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        tables = value and all(isinstance(item, dict) for item in value)
        return "a list of tables" if tables else f"a list of {len(value)}"
    if isinstance(value, datetime | date | time):
        return f"{value} (a date or time)"
    kind = "an integer" if isinstance(value, int) else "a float"
    return f"{_shown_number(value)} ({kind})"


def _shown_number(value: object) -> str:
    # Decimal digits of a huge integer can be refused by Python itself; hexadecimal ones can't.
    if isinstance(value, int) and value.bit_length() > 256:
        return f"{'-' if value < 0 else ''}{hex(abs(value))[:SHOWN_CHARACTERS]}..."
    return str(value)


def toml_value(value: object) -> str:
    """A value as it would be written in the file."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key} = {toml_value(item)}' for key, item in value.items())}}}"
    return str(value).lower() if isinstance(value, bool) else str(value)
