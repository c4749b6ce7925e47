# SPDX-License-Identifier: Apache-2.0
"""The map of the code matches the code."""

from tools.code_map import DOCUMENT, ROOT, filled, inner, layers, parts, purpose


def test_each_part_is_in_one_layer() -> None:
    mapped = sorted(part for row in layers() for part in row)
    assert mapped == parts()


def test_each_part_says_what_belongs_there() -> None:
    silent = [part for part in parts() if not purpose(part)]
    assert silent == []
    assert inner("gateway") == ["gateway/jobs"]


def test_the_documented_map_is_that_of_the_code() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert filled(text) == text, "python -m tools.code_map writes it"


def test_each_folder_of_the_tree_is_in_the_table_of_folders() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    kept = [path for path in (ROOT / "tests").iterdir() if (path / "__init__.py").is_file()]
    folders = {f"tests/{path.name}" for path in kept} | {
        "docs/",
        "gpuwarden/",
        "packaging/",
        "tools/",
    }
    assert {folder for folder in folders if f"| `{folder}` |" not in text} == set()
