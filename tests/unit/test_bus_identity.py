# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from gpuwarden.bus.identity import Identity, unit_of


@pytest.mark.parametrize(
    ("groups", "unit"),
    [
        ("0::/system.slice/cockpit.service\n", "cockpit.service"),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", "session-3.scope"),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/a.service\n", "a.service"),
        ("0::/system.slice/docker.service/deep/er\n", "docker.service"),
        ("0::/\n", ""),
        ("", ""),
    ],
)
def test_a_process_is_named_by_the_innermost_unit_around_it(
    tmp_path: Path, groups: str, unit: str
) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cgroup").write_text(groups)
    assert unit_of(7, tmp_path) == unit


def test_a_process_that_has_ended_has_no_unit(tmp_path: Path) -> None:
    assert unit_of(7, tmp_path) == ""


def test_a_sender_is_told_by_user_and_unit() -> None:
    assert str(Identity(1000, 7, "session-3.scope")) == "uid 1000 (session-3.scope)"
    assert str(Identity(0)) == "uid 0"
