# SPDX-License-Identifier: Apache-2.0
"""A job as its caller sees it. Pure."""

from typing import Any

from gpuwarden.gateway.jobs.values import JobResult, JobRow, JobStatus
from gpuwarden.gateway.outlet import MARK
from gpuwarden.worker.outputs import FILE

MESSAGES = {
    "body_unreadable": "the stored image is gone or damaged: submit it again",
    "result_unreadable": "the stored answer is gone or damaged: submit the image again",
}


def job_document(
    row: JobRow,
    running_seconds: float | None = None,
    ahead: int | None = None,
    result: JobResult | None = None,
) -> dict[str, Any]:
    """What ``GET /v1/jobs/{id}`` answers; ``MARK`` stands for a large answer.

    :param running_seconds: for how long a worker has had it; None while none has.
    """
    status = row.status
    if status is JobStatus.RUNNING and running_seconds is None:
        status, ahead = JobStatus.QUEUED, 0  # in memory, next in line
    document: dict[str, Any] = {
        "id": row.id,
        "object": "job",
        "status": status.value,
        "priority": row.priority,
        "created_at": round(row.created, 3),
        "started_at": row.started and round(row.started, 3),
        "finished_at": row.finished and round(row.finished, 3),
        "bytes": row.body_bytes,
        "executions": row.executions,
        "progress": progress(status, running_seconds, ahead),
    }
    if result is not None and result.ok:
        document["result"] = result_document(row, result)
    elif row.error:
        message = result.error_message if result else MESSAGES.get(row.error, "it failed")
        document["error"] = {"type": row.error, "message": message, "param": None}
    return document


def result_document(row: JobRow, result: JobResult) -> dict[str, Any]:
    """What came of it."""
    document: dict[str, Any] = {
        "answer": result.answer if result.part in ("", FILE) else MARK,
        "model": result.model,
        "worker": result.worker,
        "seconds": round(result.seconds, 6),
    }
    if result.part == FILE:
        document["content"] = {
            "media_type": result.media_type,
            "bytes": result.content_bytes,
            "url": f"/v1/results/{row.id}",
        }
    return document


def progress(status: JobStatus, running_seconds: float | None, ahead: int | None) -> dict[str, Any]:
    """How far it is."""
    return {
        "jobs_ahead": ahead if status is JobStatus.QUEUED else None,
        "running_seconds": None if running_seconds is None else round(running_seconds, 3),
        "is_finished": status.is_final,
    }
