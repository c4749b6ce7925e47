from pathlib import Path

import pytest

from gpuwarden.systemd import command
from gpuwarden.systemd.command import SystemctlError, reload_manager, unit_properties, unit_property


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


def test_properties_of_several_units_come_in_the_units_order(systemctl: Path) -> None:
    program(systemctl, r"printf 'A=1\nB=\n\nB=x=y\nA=2 3\n'")
    found = unit_properties(["a.slice", "b.slice"], ["A", "B"])
    assert found == [{"A": "1", "B": ""}, {"A": "2 3", "B": "x=y"}]
    with pytest.raises(SystemctlError, match="3 units told of 2"):
        unit_properties(["a", "b", "c"], ["A"])


def test_a_refusal_is_told_in_systemctls_words(systemctl: Path) -> None:
    program(systemctl, "echo Access denied >&2; exit 1")
    with pytest.raises(SystemctlError, match="daemon-reload: Access denied"):
        reload_manager()


def test_a_silent_systemctl_is_given_up(systemctl: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(systemctl, "exec sleep 1000")
    monkeypatch.setattr(command, "TIMEOUT_SECONDS", 0.2)
    with pytest.raises(SystemctlError, match="timed out"):
        reload_manager()
