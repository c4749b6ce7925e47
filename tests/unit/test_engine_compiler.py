# SPDX-License-Identifier: Apache-2.0
"""Whether compiled code can be had, tried with the node's own compiler."""

import os
import shutil
import sysconfig
from pathlib import Path

import pytest

from gpuwarden.worker.engines.transformers.compiler import FOLDER, settled, trouble
from gpuwarden.worker.engines.transformers.folder import ModelError
from gpuwarden.worker.engines.transformers.options import EngineOptions

HEADERS = Path(sysconfig.get_paths()["include"])
OPTIONS = EngineOptions("/srv/models/m")


def environment(folder: Path, **changes: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], FOLDER: str(folder / "inductor"), **changes}


@pytest.fixture
def headers(tmp_path: Path) -> Path:
    """An interpreter's headers, as far as the trial needs them."""
    folder = tmp_path / "include"
    folder.mkdir()
    (folder / "Python.h").write_text("")
    return folder


def test_where_all_is_there_nothing_is_the_trouble_and_nothing_stays(
    tmp_path: Path, headers: Path
) -> None:
    assert trouble(environment(tmp_path), headers) == ""
    assert list((tmp_path / "inductor").iterdir()) == []


def test_without_a_compiler(tmp_path: Path, headers: Path) -> None:
    said = trouble(environment(tmp_path, PATH=str(tmp_path)), headers)
    assert said.startswith(f"there is no C compiler in PATH ({tmp_path}): install gcc")


def test_another_compiler_is_named_in_cc(tmp_path: Path, headers: Path) -> None:
    own = str(shutil.which("gcc"))
    assert trouble(environment(tmp_path, PATH="", CC=own), headers) == ""
    said = trouble(environment(tmp_path, CC="/opt/none/cc"), headers)
    assert said.startswith("the C compiler /opt/none/cc can't be run")


def test_without_the_interpreters_headers(tmp_path: Path) -> None:
    said = trouble(environment(tmp_path), tmp_path)
    assert f"{tmp_path} has no Python.h" in said
    assert "python3-dev" in said


def test_a_compiler_that_lacks_something_of_its_own_is_quoted(
    tmp_path: Path, headers: Path
) -> None:
    (headers / "Python.h").write_text("#include <no-such-libc.h>\n")
    said = trouble(environment(tmp_path), headers)
    assert "no-such-libc.h: No such file" in said
    assert "libc6-dev" in said


def test_a_folder_that_can_not_be_written(tmp_path: Path, headers: Path) -> None:
    (tmp_path / "inductor").write_text("")
    said = trouble(environment(tmp_path), headers)
    assert said == f"nothing can be written to {tmp_path}/inductor ({FOLDER}): File exists"


def test_what_is_compiled_must_be_a_library_that_loads(tmp_path: Path, headers: Path) -> None:
    fake = tmp_path / "cc"
    fake.write_text('#!/bin/sh\nfor last; do :; done\necho no library > "$last"\n')
    fake.chmod(0o755)
    said = trouble(environment(tmp_path, CC=str(fake)), headers)
    assert "can't be run" in said
    assert "noexec" in said


def test_auto_takes_what_can_be_had_and_what_was_asked_for_is_refused() -> None:
    assert settled(OPTIONS, "").compile == "all"
    bare = settled(OPTIONS, "no compiler")
    assert (bare.compile, bare.one_row_kernel) == ("none", False)
    asked = EngineOptions("/srv/models/m", compile="steps")
    assert settled(asked, "") == asked
    with pytest.raises(ModelError, match="compile is steps, but no compiler; or leave it out"):
        settled(asked, "no compiler")
