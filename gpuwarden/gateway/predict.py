# SPDX-License-Identifier: Apache-2.0
"""``POST /predict``: a question about one image."""

import asyncio
from functools import lru_cache
from typing import Any

from aiohttp.web import BaseRequest, StreamResponse

from gpuwarden.gateway.admission import examine
from gpuwarden.gateway.http import as_json, response_of_json
from gpuwarden.gateway.intake import Intake, outcome_of
from gpuwarden.gateway.job import Answer, Job
from gpuwarden.gateway.outlet import MARK, send, send_within
from gpuwarden.worker.outputs import FILE

PATH = "/predict"
RESULT_HEADER = "X-Gpuwarden-Result"  # what is beside a file: the answer that it would else be


class PredictEndpoint:
    """Takes an image (a form, raw, or by reference) and its question."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def predict(self, request: BaseRequest) -> StreamResponse:
        """Answer a question about an image."""
        async with self._intake.answering(request, examine) as job:
            return await respond(request, job, await outcome_of(job))


async def respond(request: BaseRequest, job: Job, answer: Answer) -> StreamResponse:
    """The answer in whichever form it has. Raises ConnectionError."""
    now, output = asyncio.get_running_loop().time(), answer.output
    if output is None:
        return response_of_json(prediction_json(job, answer, now))
    prediction = prediction_of(job, answer, now)
    if output.part != FILE:
        return await send_within(request, prediction | {"answer": MARK}, output)
    headers = {RESULT_HEADER: as_json(prediction).decode("ascii")}
    return await send(request, output.media_type, output, headers=headers)


def prediction_json(job: Job, answer: Answer, now: float) -> bytes:
    """The same as ``prediction_of`` in JSON; what the worker said is not read for it."""
    between = words_between(answer.model, answer.worker)
    seconds = round(now - job.accepted_at, 6)
    return b'{"answer":%b%b%b}' % (answer.data, between, repr(seconds).encode("ascii"))


@lru_cache
def words_between(model: str, worker: int) -> bytes:
    """What stands between the answer and its seconds."""
    return b',"model":%b,"worker":%d,"seconds":' % (as_json(model), worker)


def prediction_of(job: Job, answer: Answer, now: float) -> dict[str, Any]:
    """What a worker has answered, as the caller gets it."""
    return {
        "answer": answer.answer,
        "model": answer.model,
        "worker": answer.worker,
        "seconds": round(now - job.accepted_at, 6),
    }
