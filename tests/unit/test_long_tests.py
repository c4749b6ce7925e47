# SPDX-License-Identifier: Apache-2.0
"""What ``make test`` leaves out where nodes are emulated is tested in it by a short form."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SYSTEM = ROOT / "tests" / "system"


def short_forms() -> list[tuple[str, list[str]]]:
    """The file of each ``long`` mark, and what the mark names."""
    found = []
    for file in sorted(SYSTEM.glob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.long":
                found.append((file.name, [ast.literal_eval(each) for each in node.args]))
    return found


@pytest.mark.parametrize(("file", "names"), short_forms())
def test_a_long_test_names_a_short_form_that_make_test_runs(file: str, names: list[str]) -> None:
    (name,) = names
    assert name.startswith(("tests/unit/", "tests/integration/")), file
    assert (ROOT / name).exists(), file


def test_no_mark_is_without_a_short_form() -> None:
    text = "".join(file.read_text(encoding="utf-8") for file in SYSTEM.glob("test_*.py"))
    assert len(short_forms()) == text.count("pytest.mark.long") > 5
