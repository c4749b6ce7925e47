# SPDX-License-Identifier: Apache-2.0
"""The work as a model class of ours."""

from typing import Any

from gpuwarden.worker.engine import Context, Engine, Request
from tests.bench.dataplane.served import work


class Work(Engine):
    """Takes each body where it lies."""

    def load(self, context: Context) -> None:
        """Nothing to load."""

    def predict(self, batch: list[Request]) -> list[dict[str, Any]]:
        """The answers."""
        return work.predict([work.prepare(request.body) for request in batch])


class Prepared(Engine):
    """Reads each body in a CPU process, as a class does that decodes images."""

    def load(self, context: Context) -> None:
        """Nothing to load."""

    def preprocess(self, request: Request) -> dict[str, Any]:
        """In a CPU process."""
        return work.prepare(request.body)

    def predict(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The answers."""
        return work.predict(batch)


class Quick(Work):
    """Run on the thread that speaks with the front door, as the peers run theirs: small work."""

    quick = True
