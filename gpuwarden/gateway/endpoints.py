"""What is behind each route: ``POST /predict``, health, models."""

import asyncio
import time

from aiohttp.web import BaseRequest, Response, StreamResponse

from gpuwarden.gateway.admission import Upload, examine
from gpuwarden.gateway.body import Body, receive
from gpuwarden.gateway.cards import Cards
from gpuwarden.gateway.dispatch import Dispatcher, Job
from gpuwarden.gateway.errors import ApiError
from gpuwarden.gateway.http import Routes, json_response
from gpuwarden.gateway.link import WorkerLink

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Endpoints:
    """The handlers, over one dispatcher."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._started_unix = int(time.time())

    def routes(self) -> Routes:
        """All routes."""
        routes = Routes(self._dispatcher.settings.header_limit_bytes)
        routes.add("POST", "/predict", self.predict)
        routes.add("GET", "/healthz", self.healthz)
        routes.add("GET", "/readyz", self.readyz)
        routes.add("GET", "/v1/models", self.models)
        return routes

    async def predict(self, request: BaseRequest) -> StreamResponse:
        """Answer a question about an image."""
        dispatcher = self._dispatcher
        try:
            upload = examine(request, dispatcher.settings)
            job = dispatcher.admit(upload.length or 0)
        except ApiError:
            dispatcher.reject()
            raise
        failure: BaseException | None = None
        try:
            body = await self._receive(request, upload, job)
            answer = await dispatcher.execute(job, body)
        except BaseException as error:
            failure = error
            raise
        finally:
            dispatcher.leave(job, failure)
        seconds = asyncio.get_running_loop().time() - job.accepted_at
        return json_response(
            {
                "answer": answer.answer,
                "model": answer.model,
                "worker": answer.worker,
                "seconds": round(seconds, 6),
            }
        )

    async def _receive(self, request: BaseRequest, upload: Upload, job: Job) -> Body:
        if request.headers.get("Expect", "").lower() == "100-continue" and request.transport:
            request.transport.write(CONTINUE)
        try:
            async with asyncio.timeout_at(job.request.deadline):
                return await receive(request, upload, job.room)
        except TimeoutError:
            raise ApiError(
                "request_timeout", "the body did not come within the time limit", param="body"
            ) from None

    async def healthz(self, request: BaseRequest) -> Response:
        """The event loop turns."""
        return json_response({"status": "ok"})

    async def readyz(self, request: BaseRequest) -> Response:
        """Whether a worker can answer now, and if not, why."""
        links = self._dispatcher.links.values()
        cards = self._dispatcher.queue.cards
        ready = sum(cards.is_usable(link.seat) for link in links)
        pause = self._dispatcher.running_pause()
        if ready and not pause and not self._dispatcher.queue.draining:
            return json_response({"ready": True, "workers_ready": ready})
        reasons = [
            f"worker {link.number} is {condition(link, cards)}"
            + (f": {link.tally.last_error}" if link.tally.last_error else "")
            for link in links
        ]
        if pause:
            reasons.insert(0, pause.sentence)
        if self._dispatcher.queue.draining:
            reasons.insert(0, "the service is stopping")
        reasons = reasons or ["no worker is connected"]
        error = {"type": "unavailable", "message": "; ".join(reasons), "param": None}
        content = {"ready": False, "workers_ready": ready, "reasons": reasons, "error": error}
        return json_response(content, status=503)

    async def models(self, request: BaseRequest) -> Response:
        """The models that connected workers run."""
        models: dict[str, int] = {}
        for link in self._dispatcher.links.values():
            models[link.model] = models.get(link.model, 0) + link.seat.serving
        return json_response(
            {
                "object": "list",
                "data": [
                    {
                        "id": model,
                        "object": "model",
                        "created": self._started_unix,
                        "owned_by": "gpuwarden",
                        "workers_ready": ready,
                    }
                    for model, ready in sorted(models.items())
                ],
            }
        )


def condition(link: WorkerLink, cards: Cards) -> str:
    """Why a worker answers nothing now."""
    if link.seat.stalled:
        return "stuck"
    if link.seat.serving and not cards.is_usable(link.seat):
        return f"{link.state}, but GPU {link.seat.card} is too hot"
    return link.state
