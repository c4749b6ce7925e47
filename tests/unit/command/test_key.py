# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from gpuwarden.worker.engine import OptionsError
from gpuwarden.worker.engines.command.engine import key_header


def test_a_key_comes_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(b"open-sesame\r\n")
    assert key_header(str(file)) == ["Authorization: Bearer open-sesame"]
    assert key_header("") == []


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"secret\nX-Other: secret", b"secret secret", b"secret\xe9", b"secret\0"],
)
def test_what_is_no_key_is_refused_and_not_quoted(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(OptionsError, match="one line with a key") as caught:
        key_header(str(file))
    assert "secret" not in str(caught.value)


def test_a_key_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OptionsError, match=r"api_key_file .*/none: No such file"):
        key_header(str(tmp_path / "none"))
