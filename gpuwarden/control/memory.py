# SPDX-License-Identifier: Apache-2.0
"""What the gateway publishes of the workers' memory on their cards.

Bytes and counts are of the worker's present life, ``None`` is unknown.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict

Remedy = Literal["", "caches", "batches", "recycle"]


class WorkerMemory(BaseModel):
    """How one worker's allocator stands, and what is done about it.

    :ivar peak_bytes: allocated at most so far.
    :ivar inactive_split_bytes: free parts of blocks that are otherwise in use: fragmentation.
    :ivar limit_bytes: the worker's share of its card.
    :ivar num_device_alloc: allocations that went to the card; ``num_alloc_retries`` those that
        needed the cache to be emptied first, ``num_ooms`` those that failed even so.
    :ivar shortages: times that several requests together ran out of memory, and were tried again
        by fewer; ``shortages_alone``: times that one by itself did.
    :ivar remedy: how far it has come (see gpuwarden.gateway.relief).
    :ivar is_tight: it is over the threshold since its start: its settings are too large.
    :ivar batch_ceiling: requests that it may run together for want of memory; None: all it takes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    peak_bytes: int | None = None
    inactive_split_bytes: int | None = None
    limit_bytes: int | None = None
    num_device_alloc: int | None = None
    num_alloc_retries: int | None = None
    num_ooms: int | None = None
    shortages: int = 0
    shortages_alone: int = 0
    warning_threshold: float | None = None
    remedy: Remedy = ""
    is_tight: bool = False
    batch_ceiling: int | None = None


class MemorySeries(BaseModel):
    """One worker's last hour, column by column, oldest first, whatever lives it had meanwhile."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    number: int
    gpu: int
    unix_seconds: list[int]
    reserved_bytes: list[int | None]
    allocated_bytes: list[int | None]
    inactive_split_bytes: list[int | None]


class MemoryHistory(BaseModel):
    """All workers that told anything in the last hour."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    workers: list[MemorySeries] = []
