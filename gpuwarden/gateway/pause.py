# SPDX-License-Identifier: Apache-2.0
"""A pause: for a bounded time nothing new is accepted. Pure."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from gpuwarden.gateway.errors import ApiError
from gpuwarden.text import utc

LONGEST_SECONDS = 86_400  # design.md, Gateway.Pause: a day


class Pause(BaseModel):
    """What an operator asked for.

    :param until_boottime_nanoseconds: its end on CLOCK_BOOTTIME, which no clock step moves.
    :param until_unix_microseconds: the same for people.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    boot_id: str
    until_boottime_nanoseconds: int
    until_unix_microseconds: int

    def runs(self, boottime_nanoseconds: int) -> bool:
        """Whether it has not ended."""
        return boottime_nanoseconds < self.until_boottime_nanoseconds

    def left_seconds(self, boottime_nanoseconds: int) -> int:
        """Whole seconds until its end, rounded up; never 0 while it runs."""
        return -((boottime_nanoseconds - self.until_boottime_nanoseconds) // 10**9)

    def is_believable(self, boot_id: str, boottime_nanoseconds: int) -> bool:
        """Whether it can be one of ours that still runs: of this boot, and no longer than a day."""
        longest = boottime_nanoseconds + LONGEST_SECONDS * 10**9
        ends_in_time = self.until_boottime_nanoseconds <= longest
        return self.boot_id == boot_id and self.runs(boottime_nanoseconds) and ends_in_time

    def refusal(self, boottime_nanoseconds: int) -> ApiError:
        """What a caller is answered meanwhile."""
        left_seconds = max(1, self.left_seconds(boottime_nanoseconds))
        return ApiError("paused", self.sentence, retry_after_seconds=left_seconds)

    @property
    def sentence(self) -> str:
        """In words, with its end in UTC."""
        return f"the service is paused until {utc(self.until_unix_microseconds)}"
