# SPDX-License-Identifier: Apache-2.0
"""The NVML module against a real card: it reads, and never sets."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuwarden.nvml import calls
from gpuwarden.nvml.errors import CardLostError, NvmlError
from gpuwarden.nvml.library import DRIVER_LIBRARY, DRIVER_VERSION_FILE, Library, Session
from gpuwarden.nvml.vocabulary import Field


@pytest.fixture
def session() -> Iterator[Session]:
    if not DRIVER_VERSION_FILE.exists():
        pytest.skip("no NVIDIA GPU")
    with Session(Library(DRIVER_LIBRARY, simulated=False)) as opened:
        yield opened


def test_every_card_is_listed_and_opens_by_its_uuid(session: Session) -> None:
    listing = session.cards()
    assert listing.faults == []
    assert listing.cards
    for card in listing.cards:
        print(card, session.driver_version())
        assert card.uuid.startswith("GPU-")
        session.open_card(card.uuid, card.pci_address).sample()
        session.open_card(card.uuid).sample()


def test_a_sample_is_plausible_and_its_limits_are_in_order(session: Session) -> None:
    for card in session.cards().cards:
        reader = session.open_card(card.uuid)
        sample, condition, limits = reader.sample(), reader.condition(), reader.limits()
        print(sample, condition, limits, sep="\n")
        assert sample.temperature_celsius is not None
        assert 10 < sample.temperature_celsius < 110
        assert sample.power_watts is not None
        assert 5 < sample.power_watts < 1500
        assert condition.vram_used_bytes is not None
        assert condition.vram_total_bytes is not None
        assert 0 <= condition.vram_used_bytes <= condition.vram_total_bytes
        assert condition.recovery_action != ""
        known = [limits.maximum_operating_celsius, limits.slowdown_celsius, limits.shutdown_celsius]
        told = [celsius for celsius in known if celsius is not None]
        assert told == sorted(told)


def test_what_can_be_set_is_read_without_setting_it(session: Session) -> None:
    for card in session.cards().cards:
        opened = session.open_whole_card(card.uuid)
        limits, condition = opened.reader.limits(), opened.reader.condition()
        limit = opened.control.power_limit_milliwatts()
        clocks, memory = opened.control.sm_clocks(), opened.control.memory_clocks_mhz()
        print(limit, clocks, memory, condition.counters, condition.margin_celsius)
        assert limits.power_minimum_watts is not None
        assert limits.power_maximum_watts is not None
        assert limits.power_minimum_watts <= limit / 1000 <= limits.power_maximum_watts
        fields, _ = calls.field_values(
            "test", opened.reader._handle, (Field.POWER_LIMIT_REQUESTED_MILLIWATTS,)
        )
        assert list(fields.values()) in ([], [limit]), "the field and the getter are one value"
        assert clocks is not None
        assert 0 < clocks.lowest_mhz < clocks.highest_mhz
        assert memory == tuple(sorted(memory, reverse=True))
        assert opened.control.sm_clock_mhz() <= clocks.highest_mhz
        assert condition.counters.software_power_cap_seconds is not None
        assert condition.counters.hardware_thermal_seconds is not None


def test_events_are_waited_for_without_waiting(session: Session) -> None:
    for card in session.cards().cards:
        events = session.open_whole_card(card.uuid).events
        assert events.drain() == ()
        assert events.drain() == ()
        events.close()


def test_a_card_that_was_let_go_of_can_be_reset() -> None:
    if not DRIVER_VERSION_FILE.exists():
        pytest.skip("no NVIDIA GPU")
    before = devices_open()  # torch keeps some, where a test of the engine ran before this one
    with Session(Library(DRIVER_LIBRARY, simulated=False)) as session:
        opened = session.open_whole_card(session.cards().cards[0].uuid)
        opened.reader.sample()
        opened.events.drain()
        assert len(devices_open()) > len(before)
        opened.events.close()  # a set of events alone would keep the card open
    assert devices_open() == before


def test_a_card_that_is_not_there_is_lost(session: Session) -> None:
    with pytest.raises(CardLostError) as caught:
        session.open_card("GPU-00000000-1111-2222-3333-444444444444")
    assert isinstance(caught.value, NvmlError)


def devices_open() -> list[str]:
    """The card's own devices that this process has open; a reset is refused while anybody has."""
    descriptors = [each for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]
    targets = [str(each.readlink()) for each in descriptors]
    return sorted(target for target in targets if target.startswith("/dev/nvidia"))
