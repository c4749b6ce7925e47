# SPDX-License-Identifier: Apache-2.0
"""A recording: the file that ``gpuwarden baseline record`` leaves. ``None`` stands for unknown."""

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = 1


class Part(BaseModel):
    """Base of the file's models: nothing unknown in, nothing changed after."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CardWindow(Part):
    """One card over one window: means, and the extremes that matter."""

    celsius_mean: float | None = None
    celsius_highest: float | None = None
    memory_celsius_highest: float | None = None
    watts_mean: float | None = None
    limit_watts_lowest: float | None = None
    utilization_mean: float | None = None
    vram_used_bytes_highest: int | None = None
    throttled_share: float | None = None


class Times(Part):
    """A histogram of times within a window.

    :ivar bounds: the largest time of each bucket in seconds, in order; the last bucket is open.
    :ivar counts: requests a bucket, one more than bounds.
    """

    bounds: list[float]
    counts: list[float]
    sum_seconds: float


class Requests(Part):
    """What the front door did within a window."""

    completed: float
    failed: float
    rejected: float
    cancelled: float
    total: Times
    waiting: Times
    computing: Times
    batches: float
    batched: float


class Window(Part):
    """A stretch of a recording.

    :ivar requests: None where the front door was silent or began anew; ``problem`` says so.
    :ivar cards: by index, those whose guard spoke.
    """

    start_seconds: float
    seconds: float = Field(gt=0)
    requests: Requests | None = None
    cards: dict[int, CardWindow] = {}
    problem: str = ""


class RecordedCard(Part):
    """Which card it was."""

    index: int
    uuid: str
    name: str


class Recording(Part):
    """All of it.

    :ivar machine: tells two nodes apart, and says nothing else of them.
    :ivar settings: of service and host, by name, as text.
    :ivar unsettled: names of settings that changed while it was recorded.
    :ivar windows_wanted: how many there are to be; fewer are there where it was cut short.
    """

    schema_version: int = SCHEMA
    name: str
    note: str = ""
    version: str
    started_unix_microseconds: int
    window_seconds: float
    windows_wanted: int
    host: str
    machine: str
    simulated: bool = False
    cards: list[RecordedCard] = []
    models: list[str] = []
    settings: dict[str, str] = {}
    unsettled: list[str] = []
    windows: list[Window] = []

    @property
    def is_complete(self) -> bool:
        """Whether it went on to its end."""
        return len(self.windows) >= self.windows_wanted

    @property
    def answered(self) -> float:
        """Requests answered in all of it."""
        return sum(each.requests.completed for each in self.windows if each.requests)
