# SPDX-License-Identifier: Apache-2.0
"""The guard's side of the host's tuning: what it has done, and what it knows without asking."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gpuwarden import names
from gpuwarden.config.tuning import TuningSettings
from gpuwarden.control.host import TuningData
from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.guard.tuning import HostTuning
from gpuwarden.systemd.units import JobError, Systemd
from gpuwarden.tuning.tuned import Tuned
from tests.integration.bus_peers import client
from tests.integration.private_bus import private_bus
from tests.integration.tuned_peer import POLICY, Host, Peers, peers
from tests.waiting import wait_until

DAY = TuningData(time_of_day="day", profile="gpuwarden-day", former="balanced", verified=True)


class Guard:
    """The guard's part on a host."""

    def __init__(self, host: Host, both: Peers) -> None:
        self.host = host
        self.peers = both
        self.settings = TuningSettings(enabled=True)
        self.woken = 0
        self.tuned: Tuned
        self.tuning: HostTuning

    def wake(self) -> None:
        self.woken += 1

    def profile(self) -> str:
        data = self.tuning.look()
        assert data is not None
        return data.profile


@pytest.fixture
async def guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Guard]:
    monkeypatch.setattr(names, "TUNING_STATE_FILE", tmp_path / "state.json")
    monkeypatch.setattr(names, "TUNING_RECORD_FILE", tmp_path / "former.json")
    host = Host(chosen="gpuwarden-day", manual=True, runs=True)
    async with (
        private_bus([POLICY]) as bus,
        peers(bus, host) as both,
        client(bus) as connection,
        client(bus) as other,
    ):
        made = Guard(host, both)
        systemd = Systemd(connection)
        await systemd.subscribe(lambda: None)
        made.tuned = Tuned(other)
        made.tuning = HostTuning(
            connection, systemd, made.wake, lambda: made.settings, lambda: host.profiles
        )
        await made.tuning.begin()
        await made.tuning.start()
        host.told.clear()
        yield made


def publish(data: TuningData) -> None:
    SnapshotWriter(names.TUNING_STATE_FILE, "tuning").publish(data)


async def test_what_the_units_published_is_known_without_asking(guard: Guard) -> None:
    assert guard.tuning.look() is None
    publish(DAY)
    assert guard.tuning.look() == DAY
    assert guard.host.told == []


async def test_a_host_that_is_not_to_be_tuned_has_no_profile(guard: Guard) -> None:
    publish(DAY)
    guard.settings = TuningSettings()
    await guard.tuning.reload()
    assert guard.tuning.look() is None


async def test_a_profile_that_somebody_sets_by_hand_is_seen(guard: Guard) -> None:
    publish(DAY)
    await guard.tuned.switch("balanced")
    await asyncio.to_thread(wait_until, lambda: guard.woken)
    assert guard.profile() == "balanced"
    publish(DAY)
    assert guard.profile() == "gpuwarden-day"


async def test_nothing_is_in_force_once_tuned_has_ended(guard: Guard) -> None:
    publish(DAY)
    guard.peers.end_tuned()
    await asyncio.to_thread(wait_until, lambda: not guard.profile())


async def test_tuning_is_begun_and_ended_by_its_unit(guard: Guard) -> None:
    await guard.tuning.reload()
    guard.host.tuning_unit_is_up = True
    guard.settings = TuningSettings()
    await guard.tuning.reload()
    unit = names.TUNING_UNIT
    assert guard.host.told == [f"ReloadOrRestartUnit {unit}", f"StopUnit {unit}"]


async def test_a_guard_that_comes_back_leaves_a_tuned_host_as_it_is(guard: Guard) -> None:
    publish(DAY)
    await guard.tuning.start()
    # systemd does nothing at a start of what is up: a profile that was set by hand stays.
    assert guard.host.told == [f"StartUnit {names.TUNING_UNIT}"]


@pytest.mark.parametrize("profile", ["site-day", "nonesuch"])
async def test_a_guard_that_comes_back_with_other_profiles_has_them_set_or_refused(
    guard: Guard, profile: str
) -> None:
    publish(DAY)
    guard.host.profiles.add("site-day")
    guard.settings = TuningSettings(enabled=True, day_profile=profile)
    await guard.tuning.start()
    assert guard.host.told == [f"ReloadOrRestartUnit {names.TUNING_UNIT}"]


async def test_where_nothing_was_tuned_nothing_is_begun(guard: Guard) -> None:
    guard.settings = TuningSettings()
    await guard.tuning.reload()
    assert guard.host.told == []


async def test_what_a_power_cut_left_is_put_back(guard: Guard) -> None:
    guard.settings = TuningSettings()
    names.TUNING_RECORD_FILE.touch()
    await guard.tuning.reload()
    assert guard.host.told == ["StartUnit medgemma-tuning@off.service"]


async def test_a_failure_is_told_in_the_units_own_words(guard: Guard) -> None:
    guard.host.job_results[names.TUNING_UNIT] = "failed"
    publish(TuningData(fault="tuned refuses: no"))
    with pytest.raises(JobError, match=r"^tuned refuses: no$"):
        await guard.tuning.reload()
