# SPDX-License-Identifier: Apache-2.0
"""What an operator has asked of a card for a bounded time, as it is kept for its services."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from gpuwarden.control.requests import Override
from gpuwarden.text import utc


class Lease(BaseModel):
    """What an operator asked for.

    :param until_boottime_nanoseconds: its end on CLOCK_BOOTTIME, which no clock step moves.
    :param until_unix_microseconds: the same for people.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    boot_id: str
    uuid: str
    state: Literal["alert", "critical", "released"]
    until_boottime_nanoseconds: int
    until_unix_microseconds: int

    def runs(self, boottime_nanoseconds: int) -> bool:
        """Whether it has not ended."""
        return boottime_nanoseconds < self.until_boottime_nanoseconds

    @property
    def shown(self) -> Override:
        """As it is answered and published."""
        return Override(state=self.state, until_unix_microseconds=self.until_unix_microseconds)

    @property
    def until(self) -> str:
        """Its end in words, UTC."""
        return utc(self.until_unix_microseconds)
