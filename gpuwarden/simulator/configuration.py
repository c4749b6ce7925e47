# SPDX-License-Identifier: Apache-2.0
"""cards.json: which cards stand in this node, and at which PCI addresses."""

import json
import uuid
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from gpuwarden.cpulist import parse_disjoint_cpu_list
from gpuwarden.plant.cards import PRESETS, CardModel
from gpuwarden.plant.problems import describe
from gpuwarden.simulator.layout import AFFINITY_WORDS, MAX_CARDS

# A fixed name space, so that a card at the same address has the same UUID after every boot.
UUID_NAMESPACE = uuid.UUID("6b1e4c1e-6d0f-4b70-9b0a-2f1f0d9a51aa")
MOST_CPUS = AFFINITY_WORDS * 64
PCI_ADDRESS = r"^[0-9a-fA-F]{4}(?:[0-9a-fA-F]{4})?:[0-9a-fA-F]{2}:[0-1][0-9a-fA-F]\.0$"
UUID_TEXT = r"^GPU-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$"


class CardsError(Exception):
    """cards.json can't be used; the text names file, place, what was found and what is allowed."""


class CardEntry(BaseModel):
    """One card of the node.

    :ivar near_cpus: the CPUs that its driver calls near, as a CPU list. None: those of the node
        that the kernel names for the device, and no answer where it names none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: str
    pci_address: Annotated[str, Field(pattern=PCI_ADDRESS)]
    uuid: Annotated[str, Field(pattern=UUID_TEXT)] | None = None
    near_cpus: str | None = None

    @field_validator("near_cpus")
    @classmethod
    def _cpus(cls, text: str | None) -> str | None:
        if text is not None and not all(cpu < MOST_CPUS for cpu in parse_disjoint_cpu_list(text)):
            raise ValueError(f"CPUs from 0 to {MOST_CPUS - 1} can be named")
        return text

    @field_validator("preset")
    @classmethod
    def _known(cls, preset: str) -> str:
        if preset not in PRESETS:
            raise ValueError(f"no such preset {preset!r}; there are {', '.join(PRESETS)}")
        return preset

    @property
    def model(self) -> CardModel:
        """What kind of card it is."""
        return PRESETS[self.preset]

    @property
    def address(self) -> tuple[int, int, int]:
        """PCI domain, bus and device."""
        domain, bus, rest = self.pci_address.split(":")
        return int(domain, 16), int(bus, 16), int(rest.split(".")[0], 16)

    @property
    def nvml_bus_id(self) -> str:
        """The address as NVML writes it: eight digits of domain, upper case."""
        return "{:08X}:{:02X}:{:02X}.0".format(*self.address)

    @property
    def effective_uuid(self) -> str:
        """The configured UUID, or one that follows from the PCI address."""
        return self.uuid or f"GPU-{uuid.uuid5(UUID_NAMESPACE, self.nvml_bus_id)}"


class CardsFile(BaseModel):
    """The whole of cards.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cards: Annotated[tuple[CardEntry, ...], Field(min_length=1, max_length=MAX_CARDS)]

    @model_validator(mode="after")
    def _distinct(self) -> "CardsFile":
        for what, values in (
            ("pci_address", [card.nvml_bus_id for card in self.cards]),
            ("uuid", [card.effective_uuid for card in self.cards]),
        ):
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"{what} {twice[0]} is given to more than one card")
        return self


DEFAULT_CARDS = CardsFile(
    cards=(
        CardEntry(preset="A100", pci_address="0000:41:00.0"),
        CardEntry(preset="A100", pci_address="0000:81:00.0"),
    )
)


def load_cards(path: Path) -> CardsFile:
    """Read cards.json; two A100 where there is none.

    :raises CardsError: unreadable, not JSON, or not the described form.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return DEFAULT_CARDS
    except (OSError, UnicodeDecodeError) as error:
        raise CardsError(f"{path}: can't be read: {error}") from error
    try:
        return CardsFile.model_validate(json.loads(text))
    except json.JSONDecodeError as error:
        raise CardsError(f"{path}: line {error.lineno}: not JSON: {error.msg}") from error
    except ValidationError as error:
        raise CardsError("\n".join(f"{path}: {line}" for line in describe(error))) from error
