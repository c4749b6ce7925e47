# SPDX-License-Identifier: Apache-2.0
"""What is asked over the control sockets, and what the answers hold."""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from gpuwarden.control.states import ThermalData
from gpuwarden.values import ThermalState

RELOAD = "reload"


class ReloadAnswer(BaseModel):
    """What came of a reload.

    :param applied: the components that run on the new configuration now.
    :param kept: component to why it keeps its old settings.
    :param problems: lines of what is wrong with the files; then nothing was applied.
    :param restart: workers that run by former settings until they are restarted.
    :param notes: what takes effect only later, and what would make it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    applied: list[str] = []
    kept: dict[str, str] = {}
    problems: list[str] = []
    restart: list[int] = []
    notes: list[str] = []

    @property
    def is_complete(self) -> bool:
        """Whether everybody runs on the new configuration."""
        return not self.kept and not self.problems


class Request(BaseModel):
    """Base of what is asked: nothing unknown in it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    version: int = 1
    request: str


# --- of the gateway

CANARY: Final = "canary"
DRAIN: Final = "drain"
UNDRAIN: Final = "undrain"
PAUSE: Final = "pause"
RESUME = "resume"


class DrainRequest(Request):
    """Give a worker no new work; the answer comes when it has none left, or after ``seconds``."""

    request: Literal["drain"] = DRAIN
    number: Annotated[int, Field(ge=0)]
    seconds: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 0.0


class UndrainRequest(Request):
    """Give a worker work again."""

    request: Literal["undrain"] = UNDRAIN
    number: Annotated[int, Field(ge=0)]


class DrainAnswer(BaseModel):
    """``unanswered``: accepted requests that the worker still has to answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unanswered: int


class PauseRequest(Request):
    """Refuse new requests for so long."""

    request: Literal["pause"] = PAUSE
    seconds: Annotated[int, Field(ge=1, le=86400)]


class CanaryRequest(Request):
    """Have a worker ask its card something tiny."""

    request: Literal["canary"] = CANARY
    number: Annotated[int, Field(ge=0)]


class CanaryAnswer(BaseModel):
    """What came of it: a word of ``worker/canary.py``, or ``silent``.

    :param pid: of the worker's process that was asked.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pid: int
    outcome: Literal["answered", "lost", "busy", "unused", "silent"]
    detail: str = ""


# --- of a thermal guard

STATUS = "status"
HISTORY: Final = "history"
OVERRIDE: Final = "override"
CLEAR_OVERRIDE = "clear-override"
RELEASE: Final = "release"

HISTORY_ROWS_LIMIT = 200  # a record holds 64 KiB, a row with unrounded means some 290 bytes


class OverrideRequest(Request):
    """Cool the card harder than it needs, for so long."""

    request: Literal["override"] = OVERRIDE
    state: Literal["alert", "critical"]
    seconds: Annotated[int, Field(ge=1, le=86400)]


class ReleaseRequest(Request):
    """Let go of the card, so that it can be reset, for so long."""

    request: Literal["release"] = RELEASE
    seconds: Annotated[int, Field(ge=1, le=86400)]


class HistoryRequest(Request):
    """The seconds after ``after_unix_microseconds``, oldest first; ask again for the rest."""

    request: Literal["history"] = HISTORY
    after_unix_microseconds: Annotated[int, Field(ge=0)] = 0


class HistoryRow(BaseModel):
    """One second of a card: means, and the extremes of its samples."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unix_microseconds: int
    celsius: float
    celsius_lowest: float
    celsius_highest: float
    memory_celsius: float | None = None
    watts: float | None = None
    watts_highest: float | None = None
    limit_watts: float | None = None
    state: ThermalState


class HistoryAnswer(BaseModel):
    """``more``: there is more after the last row."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rows: list[HistoryRow]
    more: bool


class ThermalEvent(BaseModel):
    """Something that happened to a card, as the journal tells it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unix_microseconds: int
    event: str
    message: str


class Override(BaseModel):
    """A running override (``alert``, ``critical``) or release (``released``)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    state: Literal["alert", "critical", "released"]
    until_unix_microseconds: int


class ThermalStatusAnswer(BaseModel):
    """A thermal guard's answer to ``status``; ``events`` are the last ones, oldest first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: ThermalData
    policy: str
    memory_alert_celsius: float | None = None
    memory_critical_celsius: float | None = None
    override: Override | None = None
    events: list[ThermalEvent] = []
