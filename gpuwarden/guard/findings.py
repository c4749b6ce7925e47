# SPDX-License-Identifier: Apache-2.0
"""What a look at the cards and their workers has found: values."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gpuwarden.control.states import Orphan
from gpuwarden.values import WorkerState


@dataclass(frozen=True, slots=True)
class Ailment:
    """What ails a worker, as a state of the contract and in words."""

    state: WorkerState
    reason: str


@dataclass(frozen=True, slots=True)
class Footprint:
    """A worker's memory that can't be taken back from it, and its soft limit; None: unknown."""

    bytes: int | None = None
    soft_limit_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Findings:
    """What a look has found.

    :ivar ailing: workers that run and are not well.
    :ivar memory: by worker.
    :ivar scans: by card, why its holders are unknown; empty where they are known.
    """

    ailing: Mapping[int, Ailment] = field(default_factory=dict)
    memory: Mapping[int, Footprint] = field(default_factory=dict)
    orphans: tuple[Orphan, ...] = ()
    scans: Mapping[int, str] = field(default_factory=dict)
