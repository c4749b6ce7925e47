# SPDX-License-Identifier: Apache-2.0
"""A job's result as a sealed file.

Most are a JSON object, which is the file's content. A large answer, or a file, is the content
itself; how the job ended is then in the file's head, to be read without it.
"""

import json
from pathlib import Path
from typing import Any

from gpuwarden.gateway.jobs import sealed
from gpuwarden.gateway.jobs.keys import StoreKey
from gpuwarden.gateway.jobs.values import JobResult, JobRow

ENDED = "result"  # in the head of a file whose content is something else


def write_result(
    path: Path,
    key: StoreKey,
    row: JobRow,
    result: JobResult,
    finished: float,
    content: memoryview | None = None,
) -> int:
    """Make the file; its size. Raises OSError.

    :param finished: seconds since 1970.
    :param content: what the result has beside its JSON.
    """
    meta: dict[str, Any] = {
        "created": row.created,
        "started": row.started,
        "finished": finished,
        "priority": row.priority,
        "body_bytes": row.body_bytes,
        "request": row.request and row.request.hex(),
        "executions": row.executions,
        "deaths": row.deaths,
        "tries": row.tries,
        "idempotency": row.idempotency and row.idempotency.hex(),
    }
    if content is None:
        content = memoryview(json.dumps(vars(result), allow_nan=False).encode())
    else:
        meta[ENDED] = vars(result)
    return sealed.write(path, key.secret, f"{row.id}.result", meta, content)


def read_result(path: Path, key: StoreKey, id: str) -> JobResult:
    """How a job ended, without a content beside it. Raises SealError, OSError."""
    head = sealed.read_meta(path, key.secret, f"{id}.result")
    if ENDED in head.meta:
        return JobResult(**head.meta[ENDED])
    content = bytearray(head.length)
    sealed.read(path, key.secret, f"{id}.result", lambda length: memoryview(content)[:length])
    return JobResult(**json.loads(content))
