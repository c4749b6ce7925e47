# SPDX-License-Identifier: Apache-2.0
"""The host's profile, switched and put back through a tuned that answers before it acts."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gpuwarden.config import load_configuration
from gpuwarden.config.tuning import TuningSettings
from gpuwarden.control.host import TuningData
from gpuwarden.control.snapshot import read_snapshot
from gpuwarden.tuning.decision import Wish
from gpuwarden.tuning.record import read_record
from gpuwarden.tuning.service import OFF, Places, Run, main
from gpuwarden.tuning.switch import SwitchPlaces
from tests.integration.private_bus import private_bus
from tests.integration.tuned_peer import POLICY, RECOMMENDED, Host, Peers, peers

ON = TuningSettings(enabled=True)
DAY, NIGHT = ON.day_profile, ON.night_profile


class Node:
    """A host on a bus, on which medgemma-tuning runs."""

    def __init__(self, address: str, folder: Path, host: Host) -> None:
        self.host = host
        self.record_file = folder / "former.json"
        self.peers: Peers
        self.places = Places(
            bus_address=address,
            state_file=folder / "state.json",
            switch=SwitchPlaces(
                record_file=self.record_file,
                profiles=lambda: host.profiles,
                has_tuned=lambda: host.load_state == "loaded",
            ),
        )

    async def run(self, wish: Wish, settings: TuningSettings = ON) -> int:
        return await Run(self.places).do(wish, settings)

    def state(self) -> TuningData:
        return read_snapshot(self.places.state_file, TuningData).data


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """A host in its day, on which tuned is installed and doesn't run."""
    host = Host()
    host.put_to_day()
    async with private_bus([POLICY]) as bus, peers(bus, host) as both:
        made = Node(bus.address, tmp_path, host)
        made.peers = both
        yield made


async def chosen(node: Node, profile: str) -> None:
    """tuned runs, with a profile of the administrator's choice."""
    node.host.chosen, node.host.manual = profile, True
    await node.peers.start_tuned()


async def test_the_profile_is_in_force_when_the_run_is_over(node: Node) -> None:
    await chosen(node, "balanced")
    assert await node.run(Wish.NOW) == 0
    assert node.host.in_force == DAY
    assert node.state() == TuningData(
        time_of_day="day", profile=DAY, former="balanced", verified=True
    )


async def test_the_timers_say_which_it_is_and_a_start_by_hand_which_is_wanted(node: Node) -> None:
    node.host.put_to_night()
    assert await node.run(Wish.NOW) == 0
    assert node.host.in_force == NIGHT
    assert await node.run(Wish.DAY) == 0
    assert node.host.in_force == DAY
    node.host.firing = {"day", "night"}  # both were missed
    assert await node.run(Wish.DAY) == 0
    assert node.host.in_force == NIGHT


async def test_what_is_in_force_already_is_only_looked_at(node: Node) -> None:
    assert await node.run(Wish.NOW) == 0
    node.host.told.clear()
    assert await node.run(Wish.NOW) == 0
    assert [word for word in node.host.told if "switch" in word] == []
    assert "verify_profile" in node.host.told


async def test_what_has_drifted_is_set_once_more_and_told_if_that_does_not_help(node: Node) -> None:
    assert await node.run(Wish.NOW) == 0
    node.host.told.clear()
    node.host.verified = [(False, False), (False, False)]
    assert await node.run(Wish.NOW) == 0
    assert node.host.told.count(f"switch_profile {DAY}") == 1
    assert node.state().verified is False
    assert "tuned-adm verify" in node.state().note


async def test_settings_that_this_machine_lacks_are_no_difference(node: Node) -> None:
    node.host.verified = [(False, True)]
    assert await node.run(Wish.NOW) == 0
    assert node.state().verified is True


async def test_the_administrators_profile_comes_back(node: Node) -> None:
    await chosen(node, "balanced")
    await node.run(Wish.DAY)
    await node.run(Wish.NIGHT)
    assert await node.run(Wish.OFF) == 0
    assert (node.host.in_force, node.host.manual, node.host.runs) == ("balanced", True, True)
    assert read_record(node.record_file) is None
    assert node.state() == TuningData()


async def test_tuneds_own_choice_is_its_own_again(node: Node) -> None:
    await node.peers.start_tuned()
    await node.run(Wish.DAY)
    assert await node.run(Wish.END) == 0
    assert (node.host.in_force, node.host.manual) == (RECOMMENDED, False)


async def test_a_tuned_that_had_nothing_to_set_has_nothing_again(node: Node) -> None:
    await chosen(node, "")
    await node.run(Wish.DAY)
    assert await node.run(Wish.OFF) == 0
    assert (node.host.in_force, node.host.chosen, node.host.runs) == ("", "", True)


async def test_a_tuned_that_did_not_run_is_started_for_it_and_stopped_after_it(node: Node) -> None:
    assert await node.run(Wish.DAY) == 0
    assert node.host.in_force == DAY
    assert await node.run(Wish.END) == 0
    # What it had set is taken back before systemd is told, which ends it after us.
    assert node.host.told[-2:] == ["stop", "StopUnit tuned.service"]
    assert (node.host.chosen, node.host.manual, node.host.in_force) == (RECOMMENDED, False, "")


async def test_a_choice_made_since_stays(node: Node) -> None:
    await node.run(Wish.DAY)
    node.host.chosen = node.host.in_force = "balanced"
    assert await node.run(Wish.OFF) == 0
    assert (node.host.in_force, node.host.runs) == ("balanced", True)


async def test_a_former_profile_that_is_gone_leaves_none(node: Node) -> None:
    await chosen(node, "balanced")
    await node.run(Wish.DAY)
    node.host.profiles.remove("balanced")
    assert await node.run(Wish.OFF) == 0
    assert node.host.in_force == ""


async def test_an_end_never_waits_for_a_tuned_that_does_not_run(node: Node) -> None:
    await node.run(Wish.DAY)
    node.peers.end_tuned()
    node.host.told.clear()
    assert await node.run(Wish.END) == 0
    assert node.host.told == ["StartUnit medgemma-tuning@off.service"]
    assert read_record(node.record_file) is not None
    assert await node.run(Wish.OFF) == 0
    assert not node.host.runs
    assert node.host.chosen == RECOMMENDED


async def test_at_a_shutdown_the_choice_is_put_back_and_tuned_is_left_to_systemd(
    node: Node,
) -> None:
    await node.run(Wish.DAY)
    node.host.going_down = True
    node.host.told.clear()
    assert await node.run(Wish.END) == 0
    assert node.host.chosen == RECOMMENDED
    assert [word for word in node.host.told if "Unit" in word] == []


@pytest.mark.parametrize("wish", [Wish.DAY, Wish.NIGHT, Wish.NOW])
async def test_switched_off_it_changes_nothing_and_says_so(
    node: Node, wish: Wish, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        assert await node.run(wish, TuningSettings()) == 0
        assert await node.run(Wish.OFF, TuningSettings()) == 0
    assert node.host.told == []
    assert OFF in caplog.text
    assert "nothing was changed" in caplog.text


@pytest.mark.parametrize(
    ("load_state", "why"),
    [
        ("not-found", "tuned is not installed (apt install tuned)"),
        ("masked", "tuned is masked (systemctl unmask tuned)"),
    ],
)
async def test_without_tuned_it_says_what_stays_untuned(
    node: Node, load_state: str, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    node.host.load_state = load_state
    with caplog.at_level("INFO"):
        assert await node.run(Wish.NOW) == 0
    assert node.state() == TuningData(time_of_day="day", untuned=why)
    assert f"{why}; as the system has them stay: transparent huge pages" in caplog.text
    assert read_record(node.record_file) is None


async def test_another_tuner_is_named_and_not_ended(node: Node) -> None:
    node.host.rival_is_active = True
    assert await node.run(Wish.NOW) == 0
    assert "power-profiles-daemon tunes this host" in node.state().untuned
    assert node.host.told == []


async def test_a_tuned_without_its_bus_service_is_ended_again(node: Node) -> None:
    node.host.on_bus = False
    assert await node.run(Wish.NOW) == 0
    assert "not on the bus" in node.state().untuned
    assert node.host.told[-1] == "StopUnit tuned.service"
    assert read_record(node.record_file) is None


@pytest.mark.parametrize("wish", [Wish.DAY, Wish.NIGHT])
async def test_a_profile_that_tuned_does_not_know_changes_nothing(node: Node, wish: Wish) -> None:
    settings = TuningSettings(enabled=True, day_profile="nonesuch")
    assert await node.run(wish, settings) == 1
    assert node.state().fault == (
        'tuning.day_profile is "nonesuch", which is no profile that tuned knows '
        "(`tuned-adm list` names them)"
    )
    assert node.host.told == []


async def test_a_profile_that_can_not_be_loaded_leaves_the_former_one(node: Node) -> None:
    await chosen(node, "balanced")
    node.host.refusals[DAY] = "Cannot load profile(s)"
    assert await node.run(Wish.DAY) == 1
    assert node.state() == TuningData(
        profile="balanced", fault="tuned refuses: Cannot load profile(s)"
    )


async def test_a_failure_after_the_answer_is_heard(node: Node) -> None:
    await chosen(node, "balanced")
    node.host.breaks[DAY] = "no such plugin"
    assert await node.run(Wish.DAY) == 1
    assert node.state().fault == f"tuned could not set {DAY}: no such plugin"
    assert await node.run(Wish.OFF) == 0
    assert node.host.in_force == "balanced"


async def test_a_tuned_started_in_vain_does_not_stay(node: Node) -> None:
    node.host.breaks[DAY] = "no such plugin"
    assert await node.run(Wish.DAY) == 1
    assert node.host.told[-1] == "StopUnit tuned.service"
    assert read_record(node.record_file) is None


async def test_a_tuned_that_ends_meanwhile_is_noticed_at_once(node: Node) -> None:
    await chosen(node, "balanced")
    node.host.dies_at = DAY
    assert await node.run(Wish.DAY) == 1
    assert "it ended meanwhile" in node.state().fault
    record = read_record(node.record_file)
    assert record is not None
    assert record.former_profile == "balanced"


async def test_a_tuned_that_does_not_start_is_a_fault(node: Node) -> None:
    node.host.starts = False
    assert await node.run(Wish.DAY) == 1
    assert "tuned does not start (systemctl status tuned)" in node.state().fault
    assert read_record(node.record_file) is None


async def test_a_record_that_can_not_be_kept_forbids_any_change(node: Node, tmp_path: Path) -> None:
    await chosen(node, "balanced")
    node.record_file.with_name(".former.json.new").mkdir()  # so that no file can be put there
    assert await node.run(Wish.DAY) == 1
    assert "so the host is left as it is" in node.state().fault
    assert node.host.in_force == "balanced"


def test_a_wish_that_is_none_is_refused(tmp_path: Path) -> None:
    assert main(["noon"], Places(state_file=tmp_path / "state.json")) == 2
    assert main([], Places(state_file=tmp_path / "state.json")) == 2


def test_an_unusable_configuration_is_told(tmp_path: Path) -> None:
    (tmp_path / "gpuwarden.toml").write_text("[tuning]\nday_profile = '-x'\n")

    places = Places(
        load=lambda: load_configuration(tmp_path / "gpuwarden.toml", None),
        state_file=tmp_path / "state.json",
    )
    assert main(["now"], places) == 1
    fault = read_snapshot(places.state_file, TuningData).data.fault
    assert "gpuwarden.toml:2: tuning.day_profile: found" in fault
