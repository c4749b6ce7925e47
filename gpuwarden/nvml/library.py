# SPDX-License-Identifier: Apache-2.0
"""Which driver library speaks for the cards, and a session with it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from gpuwarden.nvml import calls
from gpuwarden.nvml.card import CardIdentity, CardReader, identify
from gpuwarden.nvml.control import CardControl
from gpuwarden.nvml.errors import CardLostError, DriverError, NoDataError, NvmlError
from gpuwarden.nvml.events import XidEvents
from gpuwarden.nvml.place import mig_instances, near_cpus
from gpuwarden.nvml.processes import ProcessLister, instances_of

DRIVER_LIBRARY = "libnvidia-ml.so.1"
LIBRARY_VARIABLE = "GPUWARDEN_NVML_LIBRARY"
DRIVER_VERSION_FILE = Path("/proc/driver/nvidia/version")
SIMULATOR_STATE_VARIABLE = "GPUWARDEN_SIM_STATE"  # core.c of the simulated library reads it, too
SIMULATOR_STATE_FILE = "/run/gpuwarden-sim/state"


@dataclass(frozen=True, slots=True)
class Library:
    """The driver library in use; ``note`` says it when a wish for another was refused."""

    path: str
    simulated: bool
    note: str = ""

    def device_file(self, uuid: str, minor: int | None) -> str:
        """What whoever uses a card has open; empty where it is not known."""
        if self.simulated:
            state = Path(os.environ.get(SIMULATOR_STATE_VARIABLE) or SIMULATOR_STATE_FILE)
            return str(state.with_name(f"card-{uuid}"))
        return "" if minor is None else f"/dev/nvidia{minor}"


def choose_library(
    environment: Mapping[str, str] = os.environ, driver_version: Path = DRIVER_VERSION_FILE
) -> Library:
    """The simulator's library if one is named and no real driver is loaded, else the driver's."""
    wished = environment.get(LIBRARY_VARIABLE)
    if not wished:
        return Library(DRIVER_LIBRARY, simulated=False)
    if driver_version.exists():
        note = (
            f"{LIBRARY_VARIABLE}={wished} is ignored: a real NVIDIA driver is loaded "
            f"({driver_version}); remove the gpuwarden-simulator package"
        )
        return Library(DRIVER_LIBRARY, simulated=False, note=note)
    return Library(wished, simulated=True)


@dataclass(frozen=True, slots=True)
class Enumeration:
    """The cards that answered, in NVML's order, and what the others said instead."""

    cards: list[CardIdentity]
    faults: list[str]


@dataclass(frozen=True, slots=True)
class OpenCard:
    """What can be done with one card, all over the same handle."""

    reader: CardReader
    control: CardControl
    events: XidEvents


class Session:
    """NVML between start and end, for one thread. Readers die with it."""

    def __init__(self, library: Library) -> None:
        """Start NVML.

        :raises NvmlError: no driver, or one that doesn't start.
        """
        calls.load(library.path)
        calls.initialise()
        self.simulated = library.simulated

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End NVML. Raises NvmlError if the driver refuses."""
        calls.call("NVML end", "nvmlShutdown")

    def driver_version(self) -> str | None:
        """The driver's version, None where it doesn't say."""
        try:
            return str(calls.call("driver", "nvmlSystemGetDriverVersion"))
        except NvmlError:
            return None

    def nvml_version(self) -> str | None:
        """NVML's own version, None where it doesn't say."""
        try:
            return str(calls.call("NVML", "nvmlSystemGetNVMLVersion"))
        except NvmlError:
            return None

    def persistent(self) -> bool | None:
        """Whether every card has persistence mode; None where one doesn't say, or there is none."""
        try:
            count = int(calls.call("cards", "nvmlDeviceGetCount"))
            modes = [self._persistence_mode(index) for index in range(count)]
        except NvmlError:
            return None
        return all(modes) if modes else None

    @staticmethod
    def _persistence_mode(index: int) -> bool:
        where = f"card {index}"
        handle = calls.call(where, "nvmlDeviceGetHandleByIndex", index)
        return bool(calls.call(where, "nvmlDeviceGetPersistenceMode", handle))

    def cards(self, *, with_place: bool = False) -> Enumeration:
        """Every card of the node. One that doesn't answer is a fault, not an end.

        :param with_place: ask for the CPUs near each card and for its MIG instances as well.
        :raises NvmlError: the driver can't even count them.
        """
        count = int(calls.call("cards", "nvmlDeviceGetCount"))
        found: list[CardIdentity] = []
        faults: list[str] = []
        for index in range(count):
            where = f"card {index}"
            try:
                handle = calls.call(where, "nvmlDeviceGetHandleByIndex", index)
                card = identify(where, handle)
                if with_place:
                    card = replace(
                        card,
                        near_cpus=near_cpus(where, handle),
                        mig_uuids=mig_instances(where, handle),
                    )
                found.append(card)
            except NvmlError as error:
                faults.append(str(error))
        return Enumeration(found, faults)

    def open_card(self, uuid: str, pci_address: str = "") -> CardReader:
        """The card ``uuid``, looked for at ``pci_address`` first, where it should be.

        :raises CardLostError: no such card, or it doesn't answer.
        :raises NvmlError: the driver fails in another way.
        """
        return self.open_whole_card(uuid, pci_address).reader

    def open_whole_card(self, uuid: str, pci_address: str = "") -> OpenCard:
        """The same for whoever changes settings as well. Raises as :meth:`open_card`."""
        where = f"card {uuid}"
        handle = self._handle(where, uuid, pci_address)
        return OpenCard(
            CardReader(where, handle), CardControl(where, handle), XidEvents(where, handle)
        )

    def open_processes(self, uuid: str, pci_address: str = "") -> ProcessLister:
        """For whoever wants to know who uses the card. Raises as :meth:`open_card`."""
        where = f"card {uuid}"
        handle = self._handle(where, uuid, pci_address)
        return ProcessLister(where, handle, instances_of(where, handle), self.driver_version())

    def _handle(self, where: str, uuid: str, pci_address: str) -> calls.Handle:
        if pci_address:
            try:
                handle = calls.call(where, "nvmlDeviceGetHandleByPciBusId", pci_address)
                if calls.call(where, "nvmlDeviceGetUUID", handle) == uuid:
                    return handle
            except CardLostError:
                raise
            except NvmlError:
                # An old driver, or the card has moved to another slot: its UUID decides.
                pass
        return self._handle_by_uuid(where, uuid)

    @staticmethod
    def _handle_by_uuid(where: str, uuid: str) -> calls.Handle:
        try:
            return calls.call(where, "nvmlDeviceGetHandleByUUID", uuid)
        except NoDataError as error:
            raise CardLostError(
                "no card of this UUID is here", where, "nvidia-smi -L lists those that are"
            ) from error
        except DriverError as error:
            # A card that fell off the bus also answers "unknown error" to the look-up.
            raise CardLostError(error.meaning, where, error.advice, error.code) from error
