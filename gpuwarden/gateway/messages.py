# SPDX-License-Identifier: Apache-2.0
"""What a worker may say, checked before anything believes it."""

import math
from typing import Any, Literal, NamedTuple, TypeGuard, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gpuwarden.worker.answers import unpack
from gpuwarden.worker.frames import Frame, FrameType
from gpuwarden.worker.outputs import MEDIA_TYPE
from gpuwarden.worker.texts import (
    KIND_LIMIT_CHARACTERS,
    PARAM_LIMIT_CHARACTERS,
    TEXT_LIMIT_CHARACTERS,
)


class Message(BaseModel):
    """Base: unknown keys are a newer worker's, and ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


# The words of gpuwarden.worker.canary.
ProbeOutcome = Literal["answered", "lost", "busy", "unused"]
LinkState = Literal["loading", "ready", "draining"]


Scheduling = Literal["batch", "slots"]


class Hello(Message):
    """A worker introduces itself.

    :ivar batch_pixels: what the images of a batch of it may have together; ``batch_tokens``: texts.
    :ivar batch_mixed: its batches may have requests of all sizes and parameters.
    :ivar together: it takes records of several frames.
    """

    protocol: int
    number: int = Field(ge=0)
    state: LinkState
    scheduling: Scheduling
    batch_pixels: int | None = Field(default=None, ge=1)
    batch_tokens: int | None = Field(default=None, ge=1)
    batch_mixed: bool = False
    max_batch: int = Field(ge=1, le=1024)
    model: str = Field(max_length=200)
    engine: str = Field(max_length=200)
    gpu_uuid: str | None = Field(default=None, max_length=100)
    gpu_index: int | None = Field(default=None, ge=0, le=1023)
    heartbeat_seconds: float | None = Field(default=None, gt=0, le=3600, allow_inf_nan=False)
    together: bool = False


class StateChange(Message):
    """A worker has changed state.

    :ivar scheduling: with what is said of batches, of an engine that had not been loaded at HELLO.
    """

    state: LinkState
    error: str = Field(default="", max_length=TEXT_LIMIT_CHARACTERS)
    scheduling: Scheduling | None = None
    batch_pixels: int | None = Field(default=None, ge=1)
    batch_tokens: int | None = Field(default=None, ge=1)
    batch_mixed: bool = False


class Joining(Message):
    """A worker with slots begins to take a request in, or has taken it in."""

    joining: bool


class ResultError(Message):
    """What went wrong with one request."""

    type: str = Field(max_length=KIND_LIMIT_CHARACTERS)
    message: str = ""
    param: str | None = Field(default=None, max_length=PARAM_LIMIT_CHARACTERS)


class Terms(Message):
    """How the caller of a chat wants the answer."""

    stream: bool = False
    include_usage: bool = False


WHOLE = Terms()  # the answer in one piece, where nothing else was asked for


class Piece(Message):
    """A piece of an answer's text, for a caller who streams."""

    request: int
    lease: int
    text: str = Field(max_length=65536)
    terms: Terms


class Pieces(Message):
    """What a worker tells at once: pieces of several answers, where it makes them together."""

    pieces: list[Piece]


class Timing(Message):
    """Where a request's time went, in the worker."""

    preprocess_seconds: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    predict_seconds: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class Wish(Message):
    """A worker needs room for a large result."""

    length: int = Field(ge=1)


class Content(Message):
    """What a result has beside its JSON, and where it lies is the gateway's own knowledge."""

    part: Literal["answer", "text", "file"]
    media_type: str = Field(pattern=f"^{MEDIA_TYPE.pattern}$")
    length: int = Field(ge=0)


class Result(Message):
    """One request's answer or error.

    :ivar ticket: a durable job's, whose result a former front door didn't live to take.
    """

    ok: bool
    answer: dict[str, Any] | None = None
    content: Content | None = None
    error: ResultError | None = None
    timing: Timing = Timing()
    terms: Terms | None = None
    ticket: str | None = Field(default=None, max_length=100)

    @property
    def predict_seconds(self) -> float:
        """How long its batch ran; 0 where that isn't known."""
        return self.timing.predict_seconds

    def is_complete(self) -> bool:
        """Whether what it announces is there."""
        return (self.answer if self.ok else self.error) is not None


class Plain(NamedTuple):
    """A ``Result`` as nearly all are: an answer that is JSON, its timing, and nothing else.

    :ivar answer: as bytes where it came so: whoever needs it reads it.
    """

    answer: dict[str, Any] | bytes
    predict_seconds: float
    ok: bool = True
    content: Content | None = None
    error: ResultError | None = None
    terms: Terms | None = None
    ticket: str | None = None


Told = Result | Plain
PLAIN = {"ok", "answer", "timing"}
TIMING = {"preprocess_seconds", "predict_seconds"}


class Memory(Message):
    """What the worker's framework holds of the card's memory."""

    vram_reserved_bytes: int = Field(ge=0)
    vram_allocated_bytes: int = Field(ge=0)


COUNT_LIMIT = 1 << 62  # bytes or times; more is no figure


class Figures(Message):
    """What an engine's allocator says, every five seconds; the rest is the runtime's.

    :ivar limit_bytes: the worker's share of the card.
    :ivar warning_threshold: share of that from which on something is done.
    :ivar shortages: times that several requests together ran out of memory; ``shortages_alone``:
        times that one by itself did.
    """

    reserved_bytes: int | None = Field(default=None, ge=0, le=COUNT_LIMIT)
    allocated_bytes: int | None = Field(default=None, ge=0, le=COUNT_LIMIT)
    peak_bytes: int | None = Field(default=None, ge=0, le=COUNT_LIMIT)
    inactive_split_bytes: int | None = Field(default=None, ge=0, le=COUNT_LIMIT)
    limit_bytes: int | None = Field(default=None, ge=0, le=COUNT_LIMIT)
    num_device_alloc: int | None = Field(default=None, ge=0, le=COUNT_LIMIT)
    num_alloc_retries: int | None = Field(default=None, ge=0, le=COUNT_LIMIT)
    num_ooms: int | None = Field(default=None, ge=0, le=COUNT_LIMIT)
    warning_threshold: float = Field(default=1.0, gt=0, le=1)
    shortages: int = Field(default=0, ge=0, le=COUNT_LIMIT)
    shortages_alone: int = Field(default=0, ge=0, le=COUNT_LIMIT)


class ServerSaid(Message):
    """What an engine's own server says of itself.

    :ivar kv_cache_usage: the share of its cache that is in use.
    """

    running: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    waiting: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    kv_cache_usage: float | None = Field(default=None, ge=0, allow_inf_nan=False)


class Probed(Message):
    """What came of a PROBE."""

    outcome: ProbeOutcome
    detail: str = Field(default="", max_length=TEXT_LIMIT_CHARACTERS)


class MessageError(Exception):
    """A frame's content is not what its type says; the text holds none of the content."""


def result_in(meta: dict[str, Any]) -> Told:
    """A RESULT; without its model where that would only say yes. Raises MessageError."""
    if meta.keys() == PLAIN and meta["ok"] is True and type(meta["answer"]) is dict:
        timing = meta["timing"]
        if type(timing) is dict and timing.keys() == TIMING and all(map(is_time, timing.values())):
            return Plain(meta["answer"], timing["predict_seconds"])
    result = parse(Result, meta)
    if not result.is_complete():
        raise MessageError("RESULT without answer or error")
    return result


def answers_in(frame: Frame) -> list[tuple[Frame, Told]]:
    """The RESULTs that an ANSWERS stands for. Raises FrameError, MessageError."""
    seconds, answers = unpack(frame)
    if not is_time(seconds):
        raise MessageError("ANSWERS: seconds")
    said: list[tuple[Frame, Told]] = []
    for request, lease, data in answers:
        said.append((Frame(FrameType.RESULT, request, lease, frame.batch), Plain(data, seconds)))
    return said


def is_time(value: object) -> TypeGuard[float]:
    """Whether it is a number of seconds, as the model takes it."""
    return type(value) is float and 0 <= value < math.inf


Kind = TypeVar("Kind", bound=Message)


def parse(kind: type[Kind], meta: dict[str, Any]) -> Kind:
    """The message in a frame. Raises MessageError; names fields, never values (patients' data)."""
    try:
        return kind.model_validate(meta)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(str(part) for part in one['loc'])}: {one['type']}"
            for one in error.errors(include_url=False, include_context=False, include_input=False)
        )
        raise MessageError(f"{kind.__name__}: {wrong}") from None
