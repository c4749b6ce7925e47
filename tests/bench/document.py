# SPDX-License-Identifier: Apache-2.0
"""The parts of documents that a benchmark writes: between two marks."""

from collections.abc import Sequence
from pathlib import Path

DOCUMENTS = Path(__file__).parents[2] / "docs"


def written(document: Path, begin: str, end: str) -> list[str]:
    """The lines between the marks."""
    text = document.read_text(encoding="utf-8")
    return text.partition(f"{begin}\n")[2].partition(end)[0].splitlines()


def write(document: Path, begin: str, end: str, lines: Sequence[str]) -> None:
    """Replace what is between the marks. Raises ValueError where they are missing."""
    text = document.read_text(encoding="utf-8")
    head, found, rest = text.partition(f"{begin}\n")
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{document}: the marks of the table are missing")
    body = "\n".join(lines)
    document.write_text(f"{head}{begin}\n{body}\n{end}{tail}", encoding="utf-8")
