# SPDX-License-Identifier: Apache-2.0
"""All routes of the front door, and what is behind those that tell how it stands."""

import time
from itertools import chain

from aiohttp.web import BaseRequest, Response

from gpuwarden.gateway import figures
from gpuwarden.gateway.access import Access
from gpuwarden.gateway.cards import Cards
from gpuwarden.gateway.chat import ChatEndpoint
from gpuwarden.gateway.dispatch import Dispatcher
from gpuwarden.gateway.ecomode import EcoMode
from gpuwarden.gateway.ecomode_endpoint import EcoModeEndpoint
from gpuwarden.gateway.http import Handler, Routes, json_response
from gpuwarden.gateway.image_endpoints import ImageEndpoints
from gpuwarden.gateway.images import ImageStore
from gpuwarden.gateway.intake import Intake
from gpuwarden.gateway.jobs.endpoints import JobEndpoints
from gpuwarden.gateway.jobs.service import Jobs
from gpuwarden.gateway.link import WorkerLink
from gpuwarden.gateway.openapi import as_text
from gpuwarden.gateway.operations import METRICS_TYPE, OPERATIONS
from gpuwarden.gateway.predict import PredictEndpoint

BRING_WORK = ("chat", "predict", "keepImage", "submitJob")  # whose refusals are counted


class Endpoints:
    """The handlers, over one dispatcher.

    :param access: who may ask.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        images: ImageStore,
        eco: EcoMode,
        access: Access,
        jobs: Jobs,
    ) -> None:
        self._dispatcher = dispatcher
        self._eco = eco
        self._access = access
        self._jobs = jobs
        self._started_unix = int(time.time())
        self._openapi = as_text().encode()
        self.intake = Intake(dispatcher, images)
        dispatcher.metrics.watch(
            lambda: chain(
                figures.counters(dispatcher),
                figures.gauges(self.intake),
                figures.of_jobs(jobs.published()),
            )
        )

    def routes(self) -> Routes:
        """All routes."""
        images, eco = ImageEndpoints(self.intake), EcoModeEndpoint(self._eco)
        handlers: dict[str, Handler] = {
            "chat": ChatEndpoint(self.intake).complete,
            "models": self.models,
            "predict": PredictEndpoint(self.intake).predict,
            "keepImage": images.receive,
            "deleteImage": images.delete,
            "thermalMode": eco.show,
            "orderThermalMode": eco.order,
            "healthz": self.healthz,
            "readyz": self.readyz,
            "metrics": self.metrics,
            "openapi": self.openapi,
            **JobEndpoints(self._jobs, self.intake).handlers,
        }
        handlers |= {name: self.intake.counted(handlers[name]) for name in BRING_WORK}
        routes = Routes(self._dispatcher.settings.header_limit_bytes, self._access)
        routes.on_response = self._dispatcher.metrics.responded
        for operation in OPERATIONS:
            if operation.name in handlers:
                routes.add(operation.method, operation.path, handlers[operation.name])
        return routes

    async def metrics(self, request: BaseRequest) -> Response:
        """Figures for Prometheus."""
        text = self._dispatcher.metrics.text()
        return Response(body=text, headers={"Content-Type": METRICS_TYPE})

    async def openapi(self, request: BaseRequest) -> Response:
        """What this service takes and gives."""
        return Response(body=self._openapi, content_type="application/json")

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
