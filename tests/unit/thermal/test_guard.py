# SPDX-License-Identifier: Apache-2.0
"""The loop round one card."""

import asyncio
from pathlib import Path

import pytest

from gpuwarden.config.thermal import CardWishes
from gpuwarden.control.snapshot import SnapshotWriter
from gpuwarden.control.states import ThermalData
from gpuwarden.systemd.events import Event
from gpuwarden.thermal import guard as guard_module
from gpuwarden.thermal.actuators import Options
from gpuwarden.thermal.decision import UNTOUCHED
from gpuwarden.thermal.happening import Happening
from gpuwarden.thermal.mind import Rules
from gpuwarden.thermal.observation import Trouble
from gpuwarden.thermal.thresholds import ThresholdsError
from gpuwarden.values import ThermalState
from tests.unit.thermal.guarding import AT_ALERT, STEPPED, StandInCard, guarding, is_in
from tests.unit.thermal.leases import lease
from tests.unit.thermal.readings import not_seen, seen

NORMAL, ALERT, CRITICAL = ThermalState.NORMAL, ThermalState.ALERT, ThermalState.CRITICAL
BLIND, LOST = ThermalState.BLIND, ThermalState.LOST


# --- from the start to the first word


async def test_it_is_ready_once_and_only_after_it_has_published(
    tmp_path: Path, card: StandInCard
) -> None:
    card.free.clear()
    async with guarding(tmp_path, card) as running:
        await asyncio.sleep(0)
        assert running.published() is None
        assert running.listener.readies == 0
        card.free.set()
        data = await running.until(lambda data: True)
        assert data.state is NORMAL
        assert running.listener.readies == 1


async def test_a_folder_that_cannot_be_written_stops_no_cooling(
    tmp_path: Path, card: StandInCard, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "thermal"
    card.answer = seen(80)
    async with guarding(folder, card) as running:
        await running.happens(lambda: running.listener.fed >= 3)
        assert running.listener.readies == 1
        assert card.applied[0] == AT_ALERT
        assert sum("can't be written" in message for message in caplog.messages) == 1
        folder.mkdir()
        await running.until(is_in(ALERT))
        assert running.listener.readies == 1


async def test_its_status_names_card_heat_power_and_state(
    tmp_path: Path, card: StandInCard
) -> None:
    async with guarding(tmp_path, card, note="the defaults hold") as running:
        await running.until(lambda data: True)
        assert running.listener.statuses[0] == (
            "GPU 0 50 C, 300 of 350 W, normal: the defaults hold"
        )


async def test_thresholds_that_do_not_suit_the_card_are_refused_and_said(
    tmp_path: Path, card: StandInCard
) -> None:
    rules = Rules(CardWishes(alert_celsius=90.0, critical_celsius=80.0, policy="stepped"))
    async with guarding(tmp_path, card, rules) as running:
        data = await running.until(is_in(NORMAL))
        assert data.reason == "the configured thresholds are refused, the card's own hold"
        assert (data.alert_celsius, data.critical_celsius) == (78, 85)
        refused = [
            event.message
            for event in running.guard.chronicle.events
            if event.event == Event.THERMAL_THRESHOLDS_REFUSED.label
        ]
        assert len(refused) == 1
        assert "alert_celsius 90 is not below critical_celsius 80" in refused[0]
        assert "shutdown 95 C" in refused[0]


async def test_counters_go_on_from_a_former_guard_of_this_boot(
    tmp_path: Path, card: StandInCard
) -> None:
    former = ThermalData(
        index=0,
        uuid="GPU-1",
        name="",
        pci_address="",
        numa_node=0,
        state=ALERT,
        since=1,
        throttles=7,
        recoveries=6,
        throttle_seconds={"software-power-cap": 90.0},
        state_seconds={"alert": 60.0},
    )
    SnapshotWriter(tmp_path / "0.json", "thermal@0").publish(former)
    card.answer = seen(80)
    async with guarding(tmp_path, card) as running:
        data = await running.until(lambda data: data.temperature_celsius == 80)
        assert (data.throttles, data.recoveries) == (7, 6)
        assert data.throttle_seconds == {"software-power-cap": 90.0}
        assert data.state_seconds["alert"] >= 60.0


async def test_what_holds_the_clocks_down_is_timed(tmp_path: Path, card: StandInCard) -> None:
    card.answer = seen(50, reasons=("hardware-thermal-slowdown",))
    async with guarding(tmp_path, card) as running:
        data = await running.until(lambda data: bool(data.throttle_seconds))
        assert data.throttle_seconds["hardware-thermal-slowdown"] > 0
        data = await running.until(lambda data: data.state_seconds.get("normal", 0) > 0)
        assert data.state_seconds["normal"] < 60


async def test_a_former_snapshot_of_another_boot_counts_for_nothing(
    tmp_path: Path, card: StandInCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with guarding(tmp_path, card) as running:
        card.answer = seen(80)
        await running.until(lambda data: data.throttles == 1)
    monkeypatch.setattr(guard_module, "boot_id", lambda: "another")
    card.answer = seen(50)
    async with guarding(tmp_path, card) as running:
        await running.until(lambda data: data.throttles == 0)


# --- what is seen reaches the card, the snapshot and the journal


async def test_a_change_of_state_is_published_before_the_next_second(
    tmp_path: Path, card: StandInCard, rare: None
) -> None:
    async with guarding(tmp_path, card) as running:
        await running.until(is_in(NORMAL))
        card.answer = seen(90)
        await running.until(is_in(CRITICAL))


async def test_what_is_decided_is_set_on_the_card(tmp_path: Path, card: StandInCard) -> None:
    async with guarding(tmp_path, card) as running:
        await running.until(is_in(NORMAL))
        assert card.applied == [UNTOUCHED]
        card.answer = seen(80)
        data = await running.until(is_in(ALERT))
        assert data.batch_limit == 1
        await running.happens(lambda: AT_ALERT in card.applied)


async def test_what_was_set_is_looked_after_once_a_second_and_not_with_each_look(
    tmp_path: Path, card: StandInCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard_module, "APPLY_EVERY_SECONDS", 3600.0)
    async with guarding(tmp_path, card) as running:
        await running.looks(10)
        assert card.applied == [UNTOUCHED]
        monkeypatch.setattr(guard_module, "APPLY_EVERY_SECONDS", 0.0)
        await running.looks(3)
        assert len(card.applied) >= 3


async def test_what_the_driver_brings_is_told(tmp_path: Path, card: StandInCard) -> None:
    async with guarding(tmp_path, card) as running:
        await running.looks(1)
        fields = {"GPU": "0", "GPU_UUID": "GPU-0", "XID": "79"}
        card.told.append(Happening(Event.XID, "GPU 0: its driver reports XID 79", fields=fields))
        await running.happens(lambda: "xid" in running.events)


async def test_each_second_leaves_a_row_of_history(
    tmp_path: Path, card: StandInCard, quick: None
) -> None:
    async with guarding(tmp_path, card) as running:
        await running.happens(lambda: len(running.guard.history.after(0, 9)[0]) == 3)
        rows, _ = running.guard.history.after(0, 1)
        assert (rows[0].celsius, rows[0].limit_watts, rows[0].state) == (50, 350, NORMAL)


# --- a card that can't be read


async def test_a_driver_that_hangs_is_blind_starves_the_watchdog_and_adds_no_history(
    tmp_path: Path, card: StandInCard, quick: None
) -> None:
    async with guarding(tmp_path, card) as running:
        await running.until(is_in(NORMAL))
        card.free.clear()
        data = await running.until(is_in(BLIND))
        assert "the driver has not answered" in data.reason
        assert data.temperature_celsius is None
        assert (data.batch_limit, data.admission) == (1, "open")
        fed, rows = running.listener.fed, len(running.guard.history.after(0, 3600)[0])
        await running.publications(5)
        assert running.listener.fed == fed
        assert len(running.guard.history.after(0, 3600)[0]) == rows
        assert running.events.count("sensor-lost") == 1
        card.free.set()
        await running.until(lambda data: data.temperature_celsius == 50)
        await running.happens(lambda: running.listener.fed > fed)
        assert running.events.count("sensor-regained") == 1


async def test_three_seconds_are_what_blindness_takes(tmp_path: Path, card: StandInCard) -> None:
    async with guarding(tmp_path, card) as running:
        await running.until(is_in(NORMAL))
        card.free.clear()
        data = await running.until(is_in(BLIND))
        assert data.reason == "the driver has not answered for 3 s"


async def test_a_driver_that_hangs_from_the_start_leaves_it_ready_and_blind(
    tmp_path: Path, card: StandInCard, quick: None
) -> None:
    card.free.clear()
    async with guarding(tmp_path, card) as running:
        data = await running.until(lambda data: "not answered" in data.reason)
        assert data.state is BLIND
        assert running.listener.readies == 1
        card.free.set()
        await running.until(lambda data: data.temperature_celsius == 50)


async def test_a_card_that_is_back_is_published_with_its_original_from_the_first_word(
    tmp_path: Path, card: StandInCard, rare: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard_module, "LOOK_AGAIN_SECONDS", 0.02)
    card.answer, card.original_watts = not_seen(Trouble.LOST), None
    async with guarding(tmp_path, card) as running:
        assert (await running.until(is_in(LOST))).original_power_limit_watts is None
        card.answer, card.original_watts = seen(50), 350.0
        assert (await running.until(is_in(NORMAL))).original_power_limit_watts == 350


@pytest.mark.parametrize(("trouble", "state"), [(Trouble.NO_DRIVER, BLIND), (Trouble.LOST, LOST)])
async def test_without_its_card_it_is_ready_feeds_the_watchdog_and_looks_again(
    tmp_path: Path,
    card: StandInCard,
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
    trouble: Trouble,
    state: ThermalState,
) -> None:
    monkeypatch.setattr(guard_module, "LOOK_AGAIN_SECONDS", 0.1)
    card.answer = not_seen(trouble, "not there")
    async with guarding(tmp_path, card) as running:
        await running.looks(3)
        data = await running.until(lambda data: True)
        assert (data.state, data.reason) == (state, "not there")
        assert running.listener.readies == 1
        assert running.listener.fed
        card.answer = seen(50)
        await running.until(lambda data: data.temperature_celsius == 50)


async def test_a_sensor_that_fails_for_a_moment_changes_nothing(
    tmp_path: Path, card: StandInCard
) -> None:
    async with guarding(tmp_path, card) as running:
        await running.until(is_in(NORMAL))
        card.answer = not_seen(Trouble.SENSOR)
        await running.looks(3)
        card.answer = seen(51)
        data = await running.until(lambda data: data.temperature_celsius == 51)
        assert data.state is NORMAL
        assert "sensor-lost" not in running.events


async def test_a_sensor_that_fails_for_long_has_the_card_cooled(
    tmp_path: Path, card: StandInCard, quick: None
) -> None:
    async with guarding(tmp_path, card) as running:
        await running.until(is_in(NORMAL))
        card.answer = not_seen(Trouble.SENSOR, "unknown error")
        data = await running.until(is_in(BLIND))
        assert data.reason == "unknown error"
        await running.happens(lambda: card.applied[-1] == AT_ALERT)
        assert running.listener.fed


async def test_a_sensor_that_has_failed_before_the_start_has_the_card_cooled(
    tmp_path: Path, card: StandInCard
) -> None:
    card.answer = not_seen(Trouble.SENSOR, "unknown error")
    async with guarding(tmp_path, card) as running:
        await running.until(is_in(BLIND))
        assert card.applied == [AT_ALERT]


# --- another configuration


async def test_another_configuration_is_followed_at_once(
    tmp_path: Path, card: StandInCard, rare: None
) -> None:
    async with guarding(tmp_path, card, note="the defaults hold") as running:
        await running.until(is_in(NORMAL))
        rules = Rules(CardWishes(alert_celsius=45.0, policy="stepped"))
        await running.guard.reconfigure(rules, Options(max_batch=3), 0.03)
        data = await running.until(is_in(ALERT))
        assert (data.alert_celsius, data.safe_celsius) == (45, 39)
        assert "the defaults hold" not in data.reason
        assert card.options == Options(max_batch=3)
        assert running.guard.sample_seconds == 0.03


async def test_thresholds_that_do_not_suit_the_card_change_nothing(
    tmp_path: Path, card: StandInCard
) -> None:
    async with guarding(tmp_path, card) as running:
        await running.until(is_in(NORMAL))
        rules = Rules(CardWishes(critical_celsius=94.0, policy="stepped"))
        with pytest.raises(ThresholdsError, match=r"critical_celsius 94 is above 90.*shutdown 95"):
            await running.guard.reconfigure(rules, Options(max_batch=3), 0.03)
        await running.looks(2)
        assert running.guard.mind.rules == STEPPED
        assert card.options is None
        assert (running.published() or pytest.fail()).critical_celsius == 85


# --- the end


async def stopped(
    folder: Path, card: StandInCard, state: ThermalState, forced: str = ""
) -> list[str]:
    """What was asked of a card by a guard that is stopped in ``state``; its last event, too."""
    async with guarding(folder, card) as running:
        if forced:
            running.guard.lend(lease("critical"))
        await running.until(is_in(state))
    await running.guard.stop()
    return card.done


async def test_a_clean_stop_restores_and_closes(tmp_path: Path, card: StandInCard) -> None:
    assert await stopped(tmp_path, card, NORMAL) == ["restore", "close"]


async def test_a_clean_stop_keeps_what_cools_a_hot_card(tmp_path: Path, card: StandInCard) -> None:
    card.answer = seen(80)
    assert await stopped(tmp_path, card, ALERT) == ["keep", "close"]


async def test_a_clean_stop_keeps_what_cools_a_blind_card(
    tmp_path: Path, card: StandInCard
) -> None:
    card.answer = not_seen(Trouble.SENSOR)
    assert await stopped(tmp_path, card, BLIND) == ["keep", "close"]


async def test_an_override_keeps_nothing_on_a_cool_card_that_is_no_longer_guarded(
    tmp_path: Path, card: StandInCard
) -> None:
    assert await stopped(tmp_path, card, CRITICAL, forced="critical") == ["restore", "close"]


async def test_a_stop_that_comes_together_with_an_order_is_heeded(
    tmp_path: Path, card: StandInCard
) -> None:
    async with guarding(tmp_path, card) as running:
        await running.until(is_in(NORMAL))
        running.guard.lend(lease("alert"))


async def test_a_stop_while_the_driver_hangs_is_bounded_and_said(
    tmp_path: Path, card: StandInCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard_module, "STOP_SECONDS", 0.2)
    async with guarding(tmp_path, card, thawed=False) as running:
        await running.until(is_in(NORMAL))
        card.free.clear()
        await running.happens(lambda: card.is_waiting)
    await running.guard.stop()
    last = list(running.guard.chronicle.events)[-1]
    assert last.event == "thermal-refused"
    assert last.message == (
        "GPU 0: the driver has not answered: what was set could not be put back"
    )
    assert card.done == []
    card.free.set()
