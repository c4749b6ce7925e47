# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a file, in one line a problem. Pure."""

from pydantic import ValidationError


def describe(error: ValidationError) -> list[str]:
    """One line a problem: the field's path, what is wrong, what was found."""
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"]) or "file"
        found = problem["input"] if isinstance(problem["input"], (str, int, float)) else None
        suffix = f" (found {found!r})" if found is not None else ""
        lines.append(f"{where}: {problem['msg']}{suffix}")
    return lines
