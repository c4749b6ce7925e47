# SPDX-License-Identifier: Apache-2.0
"""``POST /v1/chat/completions``: OpenAI's chat form, whole or as a stream of events."""

import asyncio
from functools import partial

from aiohttp.web import BaseRequest, StreamResponse

from gpuwarden.gateway.admission import examine_chat
from gpuwarden.gateway.body import Body
from gpuwarden.gateway.bodyscan import model_in
from gpuwarden.gateway.chatforms import Completion
from gpuwarden.gateway.errors import ApiError
from gpuwarden.gateway.http import json_response
from gpuwarden.gateway.intake import Intake, outcome_of
from gpuwarden.gateway.job import Answer, Job
from gpuwarden.gateway.outlet import MARK, send_within
from gpuwarden.gateway.takeover import was_taken_over
from gpuwarden.worker.outputs import TEXT, text_of

MODEL_HEADER = "X-Gpuwarden-Model"
STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # a proxy would keep the pieces until it has many
}


class ChatEndpoint:
    """Hands bodies over unparsed; the worker reads them and says how the answer is wanted."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake

    async def complete(self, request: BaseRequest) -> StreamResponse:
        """Answer a chat. Raises ApiError as long as nothing was sent."""
        header = request.headers.get(MODEL_HEADER)
        may_begin = partial(self._check_model, header, MODEL_HEADER)
        check = partial(self._note_model, header)
        response: StreamResponse | None = None
        try:
            intake = self._intake
            async with intake.answering(request, examine_chat, may_begin, check) as job:
                await job.pieces.first()
                if not job.pieces:
                    answer = await outcome_of(job)
                    if not answer.terms.stream:
                        return await self._whole(request, answer)
                    job.terms, job.model = answer.terms, answer.model
                response = StreamResponse(headers=STREAM_HEADERS)
                seconds = intake.dispatcher.settings.reader_timeout_seconds
                await stream(request, response, job, seconds)
        except ApiError:
            if response is None:
                raise  # else an event has told it
        if response is None:
            raise RuntimeError("a stream without a response")
        return response

    async def _whole(self, request: BaseRequest, answer: Answer) -> StreamResponse:
        completion, output = Completion(answer.model), answer.output
        if output is None:
            return json_response(completion.whole(answer.answer))
        if output.part != TEXT:
            raise ApiError("engine_error", "this model answers with what no chat can carry")
        return await send_within(request, completion.whole(answer.answer | {"text": MARK}), output)

    def _note_model(self, header: str | None, body: Body) -> None:
        """Note which model is promised by accepting it. Raises ApiError."""
        body.model = header or model_in(body.image)
        if header is None:
            self._check_model(body.model, "model")

    def _check_model(self, model: str | None, param: str) -> None:
        """Refuse at once what no worker runs. Raises ApiError: 404, 503 where its worker goes."""
        if model is None:
            return
        links = self._intake.dispatcher.links.values()
        models = {link.model for link in links}
        if models and model not in models:
            text = "there is no such model here: GET /v1/models lists them"
            raise ApiError("model_not_found", text, param=param)
        if models and all(link.seat.drained for link in links if link.model == model):
            text = "the workers with this model get no new work now"
            raise ApiError("model_unavailable", text, param=param, retry_after_seconds=5)


async def stream(
    request: BaseRequest, response: StreamResponse, job: Job, reader_seconds: float
) -> None:
    """Send the answer as it comes. Raises ApiError when an event has told of it."""
    if was_taken_over(request):
        response.force_close()
    completion = Completion(job.model, job.terms.include_usage)
    await response.prepare(request)
    send = partial(write, request, response, reader_seconds)
    await send(completion.begins())
    try:
        told = False
        async for text in job.pieces.follow():
            told = True
            await send(completion.piece(text))
        answer = (await outcome_of(job)).answer
        rest = b"" if told else completion.piece(text_of(answer))
        await send(rest + completion.ends(answer))
    except ApiError as error:
        await send(completion.breaks_off(error))
        raise
    finally:
        await response.write_eof()


async def write(
    request: BaseRequest, response: StreamResponse, seconds: float, events: bytes
) -> None:
    """Send events. Raises ConnectionResetError where the client takes nothing for too long."""
    try:
        async with asyncio.timeout(seconds):
            await response.write(events)
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("the client reads no more") from None
