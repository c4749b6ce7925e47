"""The work as a model class of ours."""

from typing import Any

from gpuwarden.worker.engine import Context, Engine, Request
from tests.bench.dataplane.served import work


class Work(Engine):
    """Reads in a CPU process, answers on the GPU thread, as an integrator's class does."""

    def load(self, context: Context) -> None:
        """Nothing to load."""

    def preprocess(self, request: Request) -> dict[str, Any]:
        return work.prepare(request.body)

    def predict(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return work.predict(batch)
