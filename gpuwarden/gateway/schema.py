# SPDX-License-Identifier: Apache-2.0
"""The shapes of what the front door takes and gives, for ``/openapi.json``.

They describe: what checks a chat is the worker, which parses it (a test holds both together).
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

REFERENCE_PATTERN = "^gpuwarden://[0-9a-f]{32}$"


class Shape(BaseModel):
    """Base: what isn't named isn't taken."""

    model_config = ConfigDict(extra="forbid")


class Answered(BaseModel):
    """Base of what is given: newer versions may give more."""


class ImageUrl(Shape):
    """Where an image is: in the URL itself, or sent before."""

    url: str = Field(description="data:image/png;base64,... or gpuwarden://ID")
    detail: Literal["auto", "low", "high"] | None = Field(None, description="without effect")


class ImagePart(Shape):
    """An image in a message."""

    type: Literal["image_url"]
    image_url: ImageUrl


class TextPart(Shape):
    """A text in a message."""

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """What somebody said."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart | ImagePart], Field(min_length=1)]


class StreamOptions(Shape):
    """Further wishes of who streams."""

    include_usage: bool = False
    include_obfuscation: bool = Field(False, description="without effect")


class ChatRequest(Shape):
    """OpenAI's form of a chat. What would change the answer and isn't here is refused."""

    model: str = Field(min_length=1, description="one of GET /v1/models")
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    min_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, ge=0, le=10)
    max_tokens: int | None = Field(None, ge=1, le=2**31)
    max_completion_tokens: int | None = Field(None, ge=1, le=2**31)
    top_k: int | None = Field(None, ge=-1, le=2**31)
    seed: int | None = Field(None, ge=-(2**63), le=2**63 - 1)
    min_tokens: int | None = Field(None, ge=0, le=2**31, description="before the answer may end")
    ignore_eos: bool | None = Field(None, description="go on to max_tokens in any case")
    stop: str | list[str] | None = Field(None, description="up to 4, of 200 characters at most")
    n: Literal[1] | None = None
    logprobs: Literal[False] | None = None
    top_logprobs: Literal[0] | None = None
    logit_bias: dict[str, Any] | None = Field(None, description="empty")
    tools: list[Any] | None = Field(None, max_length=0)
    functions: list[Any] | None = Field(None, max_length=0)
    tool_choice: Literal["none", "auto"] | None = None
    function_call: Literal["none", "auto"] | None = None
    response_format: dict[Literal["type"], Literal["text"]] | None = None
    modalities: list[Literal["text"]] | None = None
    user: Any = Field(None, description="without effect, as are the next ones")
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None
    parallel_tool_calls: Any = None


class Usage(Answered):
    """Tokens as the model counts them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatAnswer(Answered):
    """What the model said."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(Answered):
    """The one answer."""

    index: Literal[0]
    message: ChatAnswer
    logprobs: None
    finish_reason: Literal["stop", "length"]


class MadeBy(Answered):
    """How an answer was made, where the engine says so."""

    thermal_state: str
    model_digest: str
    engine: str
    reproducible: bool


class ChatCompletion(Answered):
    """The answer to a chat."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice] = Field(min_length=1, max_length=1)
    usage: Usage
    gpuwarden: MadeBy | None = None


class PredictForm(Shape):
    """An image and what is asked about it."""

    image: bytes = Field(
        description="DICOM, PNG or JPEG; or the text gpuwarden://ID",
        json_schema_extra={"format": "binary"},
    )
    question: str | None = None


class Prediction(Answered):
    """The model's answer."""

    answer: dict[str, Any]
    model: str
    worker: int
    seconds: float


class JobContent(Answered):
    """A result that is a file."""

    media_type: str
    bytes: int
    url: str = Field(description="where it is: GET /v1/results/{id}")


class JobPrediction(Prediction):
    """The model's answer, kept."""

    content: JobContent | None = Field(None, description="where the result is a file")


class ImageForm(Shape):
    """An image to be asked about later."""

    image: bytes = Field(json_schema_extra={"format": "binary"})


class StoredImageAnswer(Answered):
    """An image that can be referred to."""

    id: str = Field(pattern="^[0-9a-f]{32}$")
    object: Literal["image"]
    url: str = Field(pattern=REFERENCE_PATTERN)
    media_type: str
    bytes: int
    expires_at: int = Field(description="seconds since 1970; each use sets it again")


class JobForm(PredictForm):
    """An image and what is asked about it, for later."""

    priority: str | None = Field(None, description="-100 to 100, the larger first")


class JobProgress(Answered):
    """How far a job is."""

    jobs_ahead: int | None
    running_seconds: float | None
    is_finished: bool


class Job(Answered):
    """A durable job; times in seconds since 1970."""

    id: str = Field(pattern="^[0-9a-f]{32}$")
    object: Literal["job"]
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    priority: int
    created_at: float
    started_at: float | None
    finished_at: float | None
    bytes: int
    executions: int = Field(description="how often it was given out; over 1 it is a repeat")
    progress: JobProgress
    result: JobPrediction | None = Field(None, description="once it has succeeded")
    error: "ErrorDetail | None" = Field(None, description="once it has failed or was cancelled")


class JobList(Answered):
    """Jobs in the order of their acceptance."""

    object: Literal["list"]
    data: list[Job]
    has_more: bool
    next: str | None = Field(description="`after` of the next page; null where this is the last")
    counts: dict[str, int] = Field(description="all jobs that are kept, by status")


class JobChange(Shape):
    """What can be changed of a job."""

    status: Literal["cancelled"]


class Deleted(Answered):
    """What is gone."""

    id: str
    object: str
    deleted: Literal[True]


class Model(Answered):
    """A model that workers of this node run."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    workers_ready: int


class ModelList(Answered):
    """The models of this node."""

    object: Literal["list"]
    data: list[Model]


class ThermalMode(Answered):
    """Whether a program on the node has ordered eco, and whether heat limits it anyway."""

    mode: Literal["eco", "normal"]
    seconds_left: int | None
    limited_by_heat: bool


class ThermalModeOrder(Shape):
    """An order."""

    mode: Literal["eco", "normal"]


class Health(Answered):
    """The front door's loop turns."""

    status: Literal["ok"]


class Readiness(Answered):
    """Whether a worker can answer now."""

    ready: bool
    workers_ready: int
    reasons: list[str] | None = None


class ErrorDetail(Answered):
    """What was wrong, and what would be right."""

    type: str
    message: str
    param: str | None = Field(description="the field, header or part at fault")


class Error(Answered):
    """An error in OpenAI's form."""

    error: ErrorDetail


class ReadinessError(Error, Readiness):
    """Why no worker can answer now."""
