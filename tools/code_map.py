# SPDX-License-Identifier: Apache-2.0
"""The map of the code in docs/develop.md, made from the code: ``python -m tools.code_map``.

Layers and their order are those that import-linter holds; what a package is for is the first
paragraph of its own docstring.
"""

import ast
import configparser
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "develop.md"
PACKAGE = ROOT / "gpuwarden"
BEGIN, END = "<!-- From the code: python -m tools.code_map -->", "<!-- map: end -->"


def layers() -> list[list[str]]:
    """The package's parts, those that may import all others first; names in a row are equals."""
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter", encoding="utf-8")
    lines = contracts["importlinter:contract:layers"]["layers"].split("\n")
    rows = [[name.strip() for name in line.split("|")] for line in lines if line.strip()]
    return [[name.removeprefix(f"{PACKAGE.name}.") for name in row] for row in rows]


def parts() -> list[str]:
    """What lies in the package, by the file system."""
    folders = [path.parent.name for path in PACKAGE.glob("*/__init__.py")]
    modules = [path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__"]
    return sorted(folders + modules)


def inner(part: str) -> list[str]:
    """The packages within a part, as paths below the package."""
    found = sorted((PACKAGE / part).glob("*/**/__init__.py"))
    return [path.parent.relative_to(PACKAGE).as_posix() for path in found]


def purpose(part: str) -> str:
    """What a part says that it is for."""
    place = PACKAGE / part
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).replace("``", "`").replace("|", "\\|")


def rows() -> list[str]:
    """The table's lines."""
    lines = ["| layer | part | what belongs there |", "|---|---|---|"]
    for number, row in enumerate(layers(), 1):
        for part in row:
            for path in (part, *inner(part)):
                suffix = "/" if (PACKAGE / path).is_dir() else ".py"
                told = purpose(path)
                if told:
                    lines.append(f"| {number} | `{path}{suffix}` | {told} |")
    return lines


def filled(text: str) -> str:
    """The document with the table of now. Raises ValueError where its marks are missing."""
    head, begun, rest = text.partition(f"{BEGIN}\n")
    _, ended, tail = rest.partition(END)
    if not begun or not ended:
        raise ValueError(f"{DOCUMENT}: the marks of the map are missing")
    table = "\n".join(rows())
    return f"{head}{BEGIN}\n\n{table}\n\n{END}{tail}"


if __name__ == "__main__":
    DOCUMENT.write_text(filled(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
