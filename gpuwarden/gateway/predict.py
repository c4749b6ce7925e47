"""``POST /predict``: a question about one image."""

import asyncio

from aiohttp.web import BaseRequest, Response

from gpuwarden.gateway.admission import examine
from gpuwarden.gateway.http import json_response
from gpuwarden.gateway.intake import Intake, outcome_of


class PredictEndpoint:
    """Takes an image (a form, raw, or by reference) and its question."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def predict(self, request: BaseRequest) -> Response:
        """Answer a question about an image."""
        async with self._intake.answering(request, examine) as job:
            answer = await outcome_of(job)
            seconds = asyncio.get_running_loop().time() - job.accepted_at
            return json_response(
                {
                    "answer": answer.answer,
                    "model": answer.model,
                    "worker": answer.worker,
                    "seconds": round(seconds, 6),
                }
            )
