# SPDX-License-Identifier: Apache-2.0
"""What is published of the host itself: how it is tuned, and who has our address."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class PortHolder(BaseModel):
    """Who listens where our front door should."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str
    pid: int
    command: str
    unit: str


class TuningData(BaseModel):
    """What the host is tuned to, as tuned said when it was last asked.

    ``time_of_day`` and ``profile`` are empty where we tune nothing; ``former`` is the profile that
    comes back then (empty: none). ``verified`` is None where it was not looked at. ``untuned`` says
    why the host is not tuned although it is to be, where nothing is wrong with that (no tuned);
    ``fault``, where something is; ``note``, what else is to be known.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    time_of_day: Literal["", "day", "night"] = ""
    profile: str = ""
    former: str = ""
    verified: bool | None = None
    untuned: str = ""
    fault: str = ""
    note: str = ""
