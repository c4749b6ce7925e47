# SPDX-License-Identifier: Apache-2.0
"""How a job ends: with what a worker answered, or why there is no answer."""

from gpuwarden.gateway.job import Answer
from gpuwarden.gateway.jobs.values import JobResult, StoreFullError

BODY_GONE = JobResult(
    ok=False,
    error_type="body_unreadable",
    error_message="the stored image is gone or damaged: submit it again",
)
NO_RESULT = JobResult(
    ok=False, error_type="engine_error", error_message="the worker's answer can't be stored"
)


def answered(answer: Answer, seconds: float) -> JobResult:
    """A worker's answer as a job's result."""
    output = answer.output
    return JobResult(
        True,
        answer.answer,
        model=answer.model,
        worker=answer.worker,
        seconds=seconds,
        part="" if output is None else output.part,
        media_type="" if output is None else output.media_type,
        content_bytes=0 if output is None else output.length,
    )


def no_room(error: StoreFullError) -> JobResult:
    """The end of a job whose large result the disk can't take."""
    return JobResult(
        ok=False,
        error_type="insufficient_storage",
        error_message=f"the result could not be stored: {error}",
    )
