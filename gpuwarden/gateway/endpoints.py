"""All routes of the front door, and what is behind those that tell how it stands."""

import time

from aiohttp.web import BaseRequest, Response

from gpuwarden.gateway.cards import Cards
from gpuwarden.gateway.chat import ChatEndpoint
from gpuwarden.gateway.dispatch import Dispatcher
from gpuwarden.gateway.http import Routes, json_response
from gpuwarden.gateway.image_endpoints import ImageEndpoints
from gpuwarden.gateway.images import ImageStore
from gpuwarden.gateway.intake import Intake
from gpuwarden.gateway.link import WorkerLink
from gpuwarden.gateway.predict import PredictEndpoint


class Endpoints:
    """The handlers, over one dispatcher."""

    def __init__(self, dispatcher: Dispatcher, images: ImageStore) -> None:
        self._dispatcher = dispatcher
        self._started_unix = int(time.time())
        self.intake = Intake(dispatcher, images)

    def routes(self) -> Routes:
        """All routes."""
        routes = Routes(self._dispatcher.settings.header_limit_bytes)
        images = ImageEndpoints(self.intake)
        routes.add("POST", "/v1/chat/completions", ChatEndpoint(self.intake).complete)
        routes.add("GET", "/v1/models", self.models)
        routes.add("POST", "/predict", PredictEndpoint(self.intake).predict)
        routes.add("POST", "/v1/images", images.receive)
        routes.add("DELETE", "/v1/images/{id}", images.delete)
        routes.add("GET", "/healthz", self.healthz)
        routes.add("GET", "/readyz", self.readyz)
        return routes

    async def healthz(self, request: BaseRequest) -> Response:
        """The event loop turns."""
        return json_response({"status": "ok"})

    async def readyz(self, request: BaseRequest) -> Response:
        """Whether a worker can answer now, and if not, why."""
        links = self._dispatcher.links.values()
        cards = self._dispatcher.queue.cards
        ready = sum(cards.is_usable(link.seat) for link in links)
        if ready and not self._dispatcher.queue.draining:
            return json_response({"ready": True, "workers_ready": ready})
        reasons = [
            f"worker {link.number} is {condition(link, cards)}"
            + (f": {link.tally.last_error}" if link.tally.last_error else "")
            for link in links
        ]
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
