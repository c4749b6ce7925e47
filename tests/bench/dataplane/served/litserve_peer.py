# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.bench.dataplane.served.litserve_peer PORT``: the work under LitServe."""

import sys
from typing import Annotated, Any

import litserve
from fastapi import Body

from tests.bench.dataplane.served.work import WORKERS, answer

Raw = Annotated[bytes, Body(media_type="application/octet-stream")]


class Work(litserve.LitAPI):
    """One worker process."""

    def setup(self, device: Any) -> None:
        """Nothing to load."""

    def decode_request(self, request: Raw) -> bytes:
        """The body as it came: cheaper than the form that its documentation shows."""
        return request

    def predict(self, body: bytes) -> dict[str, Any]:
        """The answer."""
        return answer(body)

    def encode_response(self, output: dict[str, Any]) -> dict[str, Any]:
        """LitServe makes JSON of it."""
        return output


if __name__ == "__main__":
    server = litserve.LitServer(
        Work(api_path="/"), accelerator="cpu", workers_per_device=WORKERS, timeout=60
    )
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning"
    )
