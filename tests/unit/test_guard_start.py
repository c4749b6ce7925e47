# SPDX-License-Identifier: Apache-2.0
"""Which configuration a guard starts with when the files are wrong, or don't fit the node."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from gpuwarden.config import Configuration, accepted_configuration, load_configuration
from gpuwarden.config.rules import Rule, housekeeping_is_among
from gpuwarden.guard import reload, service
from gpuwarden.guard.status import Seen, summarise
from gpuwarden.systemd.notify import Notifier

CPUS = frozenset(range(4))
UNFIT = "[placement]\nhousekeeping_cpus = '0,9'\n"


class Start:
    """A guard's start on a node of CPUs 0-3."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.file = folder / "gpuwarden.toml"
        self.accepted = folder / "accepted.json"
        monkeypatch.setattr(reload, "ACCEPTED_CONFIGURATION_FILE", self.accepted)
        monkeypatch.setattr(service, "node_rules", lambda: (housekeeping_is_among(CPUS, CPUS),))
        monkeypatch.setattr(service, "load_configuration", self._load)
        monkeypatch.setattr(
            service, "accepted_configuration", lambda: accepted_configuration(self.accepted)
        )

    def _load(self, rules: Sequence[Rule] = ()) -> Configuration:
        return load_configuration(self.file, None, rules)

    def with_file(self, text: str) -> tuple[Configuration | None, tuple[str, ...]]:
        self.file.write_text(text)
        return service._configuration(Notifier())


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    return Start(tmp_path, monkeypatch)


def test_files_that_fit_are_taken_without_a_word(start: Start) -> None:
    configuration, faults = start.with_file("[workers]\nmax_batch = 3\n")
    assert configuration is not None
    assert (configuration.workers.max_batch, faults) == (3, ())
    assert accepted_configuration(start.accepted) == configuration


def test_a_first_start_works_with_what_does_not_fit_this_node_and_says_so(start: Start) -> None:
    configuration, faults = start.with_file(UNFIT)
    assert configuration is not None
    assert configuration.placement.housekeeping_cpus == "0,9"
    assert len(faults) == 1
    assert "does not fit this node" in faults[0]
    assert "this node has no CPU 9" in faults[0]


def test_a_restart_keeps_the_former_settings(start: Start) -> None:
    start.with_file("[workers]\nmax_batch = 3\n")
    configuration, faults = start.with_file(UNFIT)
    assert configuration is not None
    assert configuration.workers.max_batch == 3
    assert "the former configuration is in use" in faults[0]


def test_a_first_start_with_wrong_files_is_refused(start: Start) -> None:
    assert start.with_file("[workers]\nmax_batch = 'x'\n") == (None, ())


def test_a_configuration_that_can_not_be_handed_on_ends_nothing(start: Start) -> None:
    start.accepted.mkdir()
    configuration, faults = start.with_file("[workers]\nmax_batch = 3\n")
    assert configuration is not None
    assert configuration.workers.max_batch == 3
    (fault,) = faults
    assert "can't be handed on" in fault


async def test_a_state_that_can_not_be_written_is_told_once_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "guard" / "state.json"
    monkeypatch.setattr(service, "GUARD_STATE_FILE", file)
    monkeypatch.setattr(service, "follow", lambda follower: None)
    guard = service.Service(Notifier(), Configuration(), ())
    seen = summarise(Seen(version="1", plan=None))
    for _ in range(2):
        guard._publish(seen)
    assert caplog.text.count("can't be written: No such file or directory") == 1
    file.parent.mkdir()
    guard._publish(seen)
    assert file.is_file()
