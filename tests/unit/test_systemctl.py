# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from gpuwarden.systemd import command
from gpuwarden.systemd.command import (
    SystemctlError,
    reload_manager,
    unit_property,
    units_properties,
)


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path / "systemctl"


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_a_property_is_what_systemctl_prints(systemctl: Path) -> None:
    program(systemctl, 'echo "$@"')
    assert unit_property("a.socket", "Listen") == "show --property=Listen --value a.socket\n"


def test_a_refusal_is_told_in_systemctls_words(systemctl: Path) -> None:
    program(systemctl, "echo Access denied >&2; exit 1")
    with pytest.raises(SystemctlError, match="daemon-reload: Access denied"):
        reload_manager()


def test_a_silent_systemctl_is_given_up(systemctl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(systemctl, "exec sleep 1000")
    monkeypatch.setattr(command, "TIMEOUT_SECONDS", 0.2)
    with pytest.raises(SystemctlError, match="timed out"):
        reload_manager()


def test_properties_of_several_units_come_in_the_order_asked(systemctl: Path) -> None:
    program(systemctl, r"printf 'LoadState=loaded\nEnvironment=A=1 B=2\n\nLoadState=not-found\n'")
    assert units_properties(["a.service", "b.service"], ["LoadState", "Environment"], 5) == [
        {"LoadState": "loaded", "Environment": "A=1 B=2"},
        {"LoadState": "not-found"},
    ]
    with pytest.raises(SystemctlError, match="2 answers about 1 units"):
        units_properties(["a.service"], ["LoadState"], 5)


def test_properties_are_waited_for_no_longer_than_was_said(systemctl: Path) -> None:
    program(systemctl, "exec sleep 1000")
    with pytest.raises(SystemctlError, match="timed out"):
        units_properties(["a.service"], ["LoadState"], 0.2)
