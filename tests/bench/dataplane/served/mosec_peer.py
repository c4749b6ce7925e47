# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.bench.dataplane.served.mosec_peer --port PORT ...``: the work under mosec."""

import json
from typing import Any

from mosec import Server, Worker

from tests.bench.dataplane.served.work import WORKERS, answer


class Work(Worker):
    """One worker process."""

    def deserialize(self, data: bytes) -> Any:
        """The body as it came."""
        return data

    def forward(self, data: Any) -> Any:
        """The answer."""
        return answer(data)

    def serialize(self, data: Any) -> bytes:
        """The answer as JSON."""
        return json.dumps(data, separators=(",", ":")).encode()


if __name__ == "__main__":
    server = Server()
    server.append_worker(Work, num=WORKERS, timeout=60)
    server.run()
