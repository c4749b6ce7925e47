"""``POST /predict``: a question about one image."""

import asyncio
from typing import Any

from aiohttp.web import BaseRequest, StreamResponse

from gpuwarden.gateway.admission import examine
from gpuwarden.gateway.http import as_json, json_response
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
    prediction = prediction_of(job, answer, asyncio.get_running_loop().time())
    output = answer.output
    if output is None:
        return json_response(prediction)
    if output.part != FILE:
        return await send_within(request, prediction | {"answer": MARK}, output)
    headers = {RESULT_HEADER: as_json(prediction).decode("ascii")}
    return await send(request, output.media_type, output, headers=headers)


def prediction_of(job: Job, answer: Answer, now: float) -> dict[str, Any]:
    """What a worker has answered, as the caller gets it."""
    return {
        "answer": answer.answer,
        "model": answer.model,
        "worker": answer.worker,
        "seconds": round(now - job.accepted_at, 6),
    }
