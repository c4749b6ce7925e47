# SPDX-License-Identifier: Apache-2.0
"""The lease of an eco that was ordered over HTTP, as a file remembers it. Pure."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

LEASE_SECONDS = 900.0


class EcoLease(BaseModel):
    """Until when eco holds.

    :param until_boottime_nanoseconds: its end on CLOCK_BOOTTIME, which no clock step moves.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    boot_id: str
    until_boottime_nanoseconds: int

    def left_seconds(self, boot_id: str, boottime_nanoseconds: int) -> float:
        """How long it still holds; 0 where it is over or can't be one of ours."""
        left = (self.until_boottime_nanoseconds - boottime_nanoseconds) / 1e9
        return left if self.boot_id == boot_id and 0 < left <= LEASE_SECONDS else 0.0
