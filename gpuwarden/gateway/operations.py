# SPDX-License-Identifier: Apache-2.0
"""The one table of what the front door does: method, path, what goes in, what comes out.

``/openapi.json`` is made from it; a test holds the routes to it.
"""

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from gpuwarden.exposition.text import CONTENT_TYPE
from gpuwarden.gateway import schema
from gpuwarden.gateway.admission import CHAT_TYPE, IMAGE_TYPES, QUESTION_LIMIT_BYTES
from gpuwarden.gateway.errors import STATUS
from gpuwarden.gateway.jobs.values import (
    PAGE_LIMIT,
    PLACE_DIGITS,
    PRIORITY_HIGHEST,
    PRIORITY_LOWEST,
    SHOWN,
    WAIT_LIMIT_SECONDS,
)

RAW_IMAGE = {"type": "string", "format": "binary", "minLength": 1}
METRICS_TYPE = CONTENT_TYPE
EVENTS_TYPE = "text/event-stream"
TEXT = {"type": "string"}
FILE = {"type": "string", "format": "binary"}
ANY_TYPE = "*/*"  # the engine's own
ID = {"type": "string", "pattern": "^[0-9a-f]{32}$"}

Content = dict[str, type[BaseModel] | dict[str, Any]]  # by media type


@dataclass(frozen=True)
class Parameter:
    """What a request may say outside of its body."""

    name: str
    place: str
    schema: dict[str, Any]
    description: str
    required: bool = False


@dataclass(frozen=True)
class Operation:
    """One method on one path.

    :ivar answers: what a status below 400 holds.
    :ivar errors: types of errors beside those that every operation has.
    :ivar needs_body: whether the body may be left out.
    """

    method: str
    path: str
    name: str
    summary: str
    answers: dict[int, Content]
    body: Content | None = None
    needs_body: bool = True
    parameters: tuple[Parameter, ...] = ()
    errors: tuple[str, ...] = ()
    unready: type[BaseModel] | None = None


JSON = CHAT_TYPE
EVERYWHERE = ("invalid_request", "authentication_required", "forbidden", "headers_too_large")
UPLOAD = (
    "request_timeout",
    "length_required",
    "body_too_large",
    "unsupported_media_type",
    "queue_full",
    "paused",
    "unavailable",
)
WORK = (
    *UPLOAD,
    "image_not_found",
    "bad_image",
    "too_many_pixels",
    "idempotency_mismatch",
    "engine_error",
    "worker_crashed",
    "too_hot",
    "queue_timeout",
    "execution_timeout",
    "out_of_memory",
)
KEY = Parameter(
    "Idempotency-Key",
    "header",
    {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
    "A retry with the same key and body joins the request that it repeats, or gets its answer.",
)
DIGEST = Parameter(
    "Content-Digest",
    "header",
    {"type": "string", "pattern": "^sha-256=:[A-Za-z0-9+/]{43}=:$"},
    "The SHA-256 of an image that is sent raw: it is checked, and a repeat needs no second upload.",
)
QUESTION = Parameter(
    "question",
    "query",
    {"type": "string", "maxLength": QUESTION_LIMIT_BYTES // 4},
    "What is asked; a form's part or the header X-Question may say it instead.",
)
IMAGE = Parameter(
    "image",
    "query",
    {"type": "string", "pattern": schema.REFERENCE_PATTERN},
    "An image that was sent before, in place of a body.",
)
MODEL = Parameter(
    "X-Gpuwarden-Model", "header", TEXT, "The model, for who wants its name checked first."
)
IMAGE_ID = Parameter("id", "path", ID, "The image's id.", required=True)
JOB_ID = Parameter("id", "path", ID, "The job's id.", required=True)
PRIORITY = Parameter(
    "priority",
    "query",
    {"type": "integer", "minimum": PRIORITY_LOWEST, "maximum": PRIORITY_HIGHEST},
    "The larger first; a form's part may say it instead.",
)
WAIT = Parameter(
    "wait",
    "query",
    {"type": "integer", "minimum": 0, "maximum": WAIT_LIMIT_SECONDS},
    "Answer as soon as the job has ended, or after so many seconds.",
)
STATUSES = Parameter(
    "status",
    "query",
    {"type": "array", "items": {"enum": [status.value for status in SHOWN]}},
    "Only jobs of these.",
)
PAGE_SIZE = Parameter(
    "limit", "query", {"type": "integer", "minimum": 1, "maximum": PAGE_LIMIT}, "Jobs at a time."
)
AFTER = Parameter(
    "after",
    "query",
    {"type": "string", "pattern": f"^([0-9]{{1,{PLACE_DIGITS}}}|[0-9a-f]{{32}})$"},
    "Go on behind this place (`next` of the page before), or behind this job.",
)
MODE = Parameter("mode", "query", {"enum": ["eco", "normal"]}, "In place of a body.")

RAW: Content = dict.fromkeys(IMAGE_TYPES, RAW_IMAGE)
FORM = "multipart/form-data"

OPERATIONS = (
    Operation(
        "POST",
        "/v1/chat/completions",
        "chat",
        "Answer a chat with images, whole or as a stream of events.",
        {200: {JSON: schema.ChatCompletion, EVENTS_TYPE: TEXT}},
        body={JSON: schema.ChatRequest},
        parameters=(KEY, MODEL),
        errors=(*WORK, "model_not_found", "model_unavailable"),
    ),
    Operation(
        "GET",
        "/v1/models",
        "models",
        "The models that workers of this node run.",
        {200: {JSON: schema.ModelList}},
    ),
    Operation(
        "POST",
        "/predict",
        "predict",
        "Answer a question about one image.",
        {200: {JSON: schema.Prediction, ANY_TYPE: FILE}},
        body={FORM: schema.PredictForm, **RAW},
        needs_body=False,
        parameters=(KEY, QUESTION, IMAGE),
        errors=WORK,
    ),
    Operation(
        "POST",
        "/v1/images",
        "keepImage",
        "Keep an image for a while, to be asked about as gpuwarden://ID.",
        {201: {JSON: schema.StoredImageAnswer}},
        body={FORM: schema.ImageForm, **RAW},
        errors=UPLOAD,
    ),
    Operation(
        "DELETE",
        "/v1/images/{id}",
        "deleteImage",
        "Forget an image now. Its id is the right to say so; nobody gets an image back.",
        {200: {JSON: schema.Deleted}},
        parameters=(IMAGE_ID,),
        errors=("image_not_found",),
    ),
    Operation(
        "POST",
        "/v1/jobs",
        "submitJob",
        "Keep an image and its question, encrypted on disk, until a worker has answered.",
        {202: {JSON: schema.Job}, 200: {JSON: schema.Job}},
        body={FORM: schema.JobForm, **RAW},
        needs_body=False,
        parameters=(KEY, DIGEST, QUESTION, IMAGE, PRIORITY),
        errors=(
            *UPLOAD,
            "image_not_found",
            "idempotency_mismatch",
            "image_set_aside",
            "result_unreadable",
            "jobs_unavailable",
            "insufficient_storage",
        ),
    ),
    Operation(
        "GET",
        "/v1/jobs",
        "listJobs",
        "The jobs in the order of their acceptance. Needs the API key.",
        {200: {JSON: schema.JobList}},
        parameters=(STATUSES, PAGE_SIZE, AFTER),
        errors=("not_found", "jobs_unavailable"),
    ),
    Operation(
        "GET",
        "/v1/jobs/{id}",
        "job",
        "How a job stands, and its answer. Its id is the right to ask.",
        {200: {JSON: schema.Job}},
        parameters=(JOB_ID, WAIT),
        errors=("not_found", "result_unreadable", "unavailable", "jobs_unavailable"),
    ),
    Operation(
        "GET",
        "/v1/results/{id}",
        "jobResult",
        "A finished job's result itself: a file, or JSON. Its id is the right to ask.",
        {200: {ANY_TYPE: FILE, JSON: {"type": "object"}}},
        parameters=(JOB_ID,),
        errors=(
            "not_found",
            "job_unfinished",
            "result_unreadable",
            "unavailable",
            "jobs_unavailable",
        ),
    ),
    Operation(
        "PATCH",
        "/v1/jobs/{id}",
        "changeJob",
        "Cancel a job. Needs the API key.",
        {200: {JSON: schema.Job}},
        body={JSON: schema.JobChange},
        parameters=(JOB_ID,),
        errors=(
            "not_found",
            "request_timeout",
            "job_finished",
            "body_too_large",
            "unsupported_media_type",
            "jobs_unavailable",
            "insufficient_storage",
        ),
    ),
    Operation(
        "DELETE",
        "/v1/jobs/{id}",
        "deleteJob",
        "Destroy a job, its image and its answer. Needs the API key.",
        {200: {JSON: schema.Deleted}},
        parameters=(JOB_ID,),
        errors=("not_found", "jobs_unavailable"),
    ),
    Operation(
        "GET",
        "/api/thermal_mode",
        "thermalMode",
        "Whether a program has ordered eco.",
        {200: {JSON: schema.ThermalMode}},
    ),
    Operation(
        "POST",
        "/api/thermal_mode",
        "orderThermalMode",
        "Order eco for 15 minutes, or end an eco that was ordered here.",
        {200: {JSON: schema.ThermalMode}},
        body={
            JSON: schema.ThermalModeOrder,
            "application/x-www-form-urlencoded": schema.ThermalModeOrder,
        },
        needs_body=False,
        parameters=(MODE,),
        errors=("rate_limited", "body_too_large", "request_timeout", "unsupported_media_type"),
    ),
    Operation("GET", "/healthz", "healthz", "The front door lives.", {200: {JSON: schema.Health}}),
    Operation(
        "GET",
        "/readyz",
        "readyz",
        "Whether a worker can answer now.",
        {200: {JSON: schema.Readiness}},
        unready=schema.ReadinessError,
    ),
    Operation("GET", "/metrics", "metrics", "Figures for Prometheus.", {200: {METRICS_TYPE: TEXT}}),
    Operation(
        "GET",
        "/openapi.json",
        "openapi",
        "This document.",
        {200: {JSON: {"type": "object"}}},
    ),
)


def statuses_of(operation: Operation) -> dict[int, list[str]]:
    """The errors of an operation, by their HTTP status."""
    found: dict[int, list[str]] = {}
    for kind in sorted({*EVERYWHERE, *operation.errors}):
        found.setdefault(STATUS[kind], []).append(kind)
    return dict(sorted(found.items()))
