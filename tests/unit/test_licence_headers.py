# SPDX-License-Identifier: Apache-2.0
"""Each source file says its licence."""

from pathlib import Path

import pytest

from tools.licence_headers import LICENCE, comment_of, lacking, sources, with_header

PYTHON, SCRIPT, C = Path("a.py"), Path("postinst"), Path("core.c")


def headed(path: Path, text: str) -> str:
    return with_header(text, comment_of(path, text))


def test_the_licence_is_the_first_line() -> None:
    assert headed(PYTHON, '"""A module."""\n') == f'# {LICENCE}\n"""A module."""\n'
    assert headed(C, "/* Cards. */\n") == f"// {LICENCE}\n/* Cards. */\n"


def test_a_program_still_begins_with_who_runs_it() -> None:
    assert headed(SCRIPT, "#!/bin/sh\nset -e\n") == f"#!/bin/sh\n# {LICENCE}\nset -e\n"


@pytest.mark.parametrize("text", ['"""A module."""\n', "#!/usr/bin/python3 -IS\nimport sys\n"])
def test_a_second_time_changes_nothing(text: str) -> None:
    once = headed(PYTHON, text)
    assert headed(PYTHON, once) == once


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("gpuwarden/__init__.py", ""),
        ("docs/install.md", "# Install\n"),
        ("packaging/documentation/assets/javascripts/iframe-worker.js", "1;\n"),
        ("tests/unit/data/plant.py", "1\n"),
    ],
)
def test_empty_files_documents_data_and_others_work_get_none(path: str, text: str) -> None:
    assert comment_of(Path(path), text) == ""


def test_no_source_file_is_without_it_where_others_have_it() -> None:
    """All or none; ``python -m tools.licence_headers`` gives it to all."""
    without = lacking()
    assert not without or without.keys() == sources().keys(), sorted(without)
