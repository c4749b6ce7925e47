# SPDX-License-Identifier: Apache-2.0
"""The shared state file: publishing it, taking it over after a crash, writing samples and events.

A daemon that was killed left the driver's settings in the file, and a real driver would have kept
them: the next one takes the file over. A clean stop marks the driver as gone.
"""

import contextlib
import ctypes
import mmap
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from gpuwarden.cpulist import parse_cpu_list
from gpuwarden.simulator import layout
from gpuwarden.simulator.configuration import CardEntry

SIMULATED_DRIVER = "580.159.04"  # the release whose answers were surveyed on a real card


class StateFile:
    """The mapped file; the only writer of samples and events."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.adopted = False
        self._memory: mmap.mmap | None = None
        self.state: layout.State

    def open(self, cards: tuple[CardEntry, ...]) -> None:
        """Take over a former daemon's file if it is of the same cards; else publish a new one."""
        self.adopted = self._adopt(cards)
        if self.adopted:
            for index in range(len(cards)):  # whoever was killed while writing left it odd
                self.state.cards[index].sequence += self.state.cards[index].sequence & 1
            return
        self._retire_old()
        fresh = self.path.with_name(self.path.name + ".new")
        descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.fchmod(descriptor, 0o644)  # every process may read sensors, whatever our umask
            os.ftruncate(descriptor, ctypes.sizeof(layout.State))
            self._map(descriptor)
        finally:
            os.close(descriptor)
        fill_identity(self.state, cards)
        fresh.rename(self.path)

    def close(self, driver_gone: bool) -> None:
        """Unmap; with ``driver_gone`` every handle into it says that its card is lost."""
        if self._memory is None:
            return
        if driver_gone:
            self.state.driver_loaded = 0
            self.path.unlink(missing_ok=True)
        del self.state
        self._memory = None  # the views of the mapping end with the structures over it

    @contextlib.contextmanager
    def sampling(self, index: int) -> Iterator[layout.Sample]:
        """Change one card's sample: readers wait or try again meanwhile."""
        card = self.state.cards[index]
        card.sequence += 1
        sample: layout.Sample = card.sample
        try:
            yield sample
        finally:
            now = unix_microseconds()
            sample.unix_us = now
            sample.check = now & 0xFFFFFFFF
            card.sequence += 1

    def add_event(self, index: int, event_type: int, data: int) -> None:
        """Append an event: the entry first, then the count that shows it."""
        count = self.state.event_count
        entry = self.state.events[count % layout.MAX_EVENTS]
        entry.card, entry.type, entry.data = index, event_type, data
        self.state.event_count = count + 1

    def _map(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, ctypes.sizeof(layout.State))
        self.state = layout.State.from_buffer(self._memory)

    def _adopt(self, cards: tuple[CardEntry, ...]) -> bool:
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            if os.fstat(descriptor).st_size != ctypes.sizeof(layout.State):
                return False
            self._map(descriptor)
        finally:
            os.close(descriptor)
        wanted = layout.State()
        fill_identity(wanted, cards)
        found = self.state
        same = (
            (found.magic, found.version, found.size, found.card_count, found.driver_loaded)
            == (wanted.magic, wanted.version, wanted.size, wanted.card_count, 1)
        ) and all(
            bytes(found.cards[i].identity) == bytes(wanted.cards[i].identity)
            for i in range(len(cards))
        )
        if not same:
            self.close(driver_gone=False)
        return same

    def _retire_old(self) -> None:
        """Tell whoever still maps a file of other cards that its driver has gone."""
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            if os.fstat(descriptor).st_size == ctypes.sizeof(layout.State):
                self._map(descriptor)
                self.close(driver_gone=True)
        finally:
            os.close(descriptor)


def unix_microseconds() -> int:
    """Now, as NVML dates its values."""
    return time.time_ns() // 1000


def fill_identity(state: layout.State, cards: Iterable[CardEntry]) -> None:
    """Write everything that stays as it is while the driver is loaded, and default settings."""
    state.magic = layout.MAGIC
    state.version = layout.VERSION
    state.size = ctypes.sizeof(layout.State)
    state.driver_loaded = 1
    state.driver_version = SIMULATED_DRIVER.encode()
    for index, entry in enumerate(cards):
        state.card_count = index + 1
        fill_card(state.cards[index], entry, index)


def fill_card(card: layout.Card, entry: CardEntry, minor: int) -> None:
    """Write one card's identity and default settings."""
    model, identity = entry.model, card.identity
    identity.name = model.name.encode()
    identity.uuid = entry.effective_uuid.encode()
    identity.serial = b"0"
    identity.pci_bus_id = entry.nvml_bus_id.encode()
    identity.pci_domain, identity.pci_bus, identity.pci_device = entry.address
    identity.pci_device_id = model.pci_device_id
    identity.pci_subsystem_id = model.pci_subsystem_id
    identity.minor = minor
    identity.architecture = int(model.architecture)
    identity.compute_major, identity.compute_minor = model.compute_capability
    identity.capabilities = int(model.capabilities)
    identity.memory_total_bytes = model.memory_bytes
    identity.memory_reserved_bytes = model.memory_reserved_bytes
    identity.event_types = model.event_types
    identity.limit_minimum_mw = milli(model.limit_minimum_watts)
    identity.limit_default_mw = milli(model.limit_default_watts)
    identity.limit_maximum_mw = milli(model.limit_maximum_watts)
    fill_thresholds_and_clocks(identity, entry)
    for cpu in parse_cpu_list(entry.near_cpus or ""):
        identity.near_cpus[cpu // 64] |= 1 << (cpu % 64)
    reset_settings(card)
    card.control.attachment = 1
    card.control.persistence = 1


def fill_thresholds_and_clocks(identity: layout.Identity, entry: CardEntry) -> None:
    """Write temperatures (0: none) and clocks of a card."""
    thresholds, clocks = entry.model.thresholds, entry.model.clocks
    identity.shutdown_celsius = thresholds.shutdown
    identity.slowdown_celsius = thresholds.slowdown
    identity.maximum_operating_celsius = thresholds.maximum_operating
    identity.memory_maximum_celsius = thresholds.memory_maximum or 0
    (
        identity.acoustic_minimum_celsius,
        identity.acoustic_current_celsius,
        identity.acoustic_maximum_celsius,
    ) = thresholds.acoustic or (0, 0, 0)
    identity.sm_minimum_mhz = clocks.sm_minimum
    identity.sm_maximum_mhz = clocks.sm_maximum
    identity.sm_step_mhz = clocks.sm_step
    identity.video_maximum_mhz = clocks.video_maximum
    identity.memory_clock_count = len(clocks.memory)
    for number, clock in enumerate(clocks.memory):
        identity.memory_clocks_mhz[number] = clock


def reset_settings(card: layout.Card) -> None:
    """Limits and locks as after loading the driver."""
    card.control.requested_limit_mw = card.identity.limit_default_mw
    card.control.sm_lock = 0
    card.control.memory_lock = 0


def milli(watts: float) -> int:
    """Milliwatts, as NVML counts."""
    return max(0, round(watts * 1000))
