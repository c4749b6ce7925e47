"""The engine that answers with what it was asked: to try the service without a model.

Options: ``delay_seconds`` (a batch's time on the card), ``allocate_bytes_per_request`` (kept, to
meet the worker's memory limit), ``fail_load`` (true: load() raises).
"""

import hashlib
import time
from typing import Any, Dict, List

from gpuwarden.worker.engine import Context, Engine, Request


class Echo(Engine):
    """Answers question, media type and parameters, with length and SHA-256 of the body."""

    def load(self, context: Context) -> None:
        """Nothing to load. Raises RuntimeError where the option ``fail_load`` asks for it."""
        if context.options.get("fail_load"):
            raise RuntimeError("option fail_load is set: remove it from [workers.options]")
        self._delay_seconds = float(context.options.get("delay_seconds", 0))
        self._allocate_bytes = int(context.options.get("allocate_bytes_per_request", 0))
        self._kept: List[bytes] = []

    def preprocess(self, request: Request) -> Dict[str, Any]:
        """What the answer will hold."""
        return {
            "question": request.question,
            "media_type": request.media_type,
            "parameters": request.parameters,
            "body_bytes": len(request.body),
            "body_sha256": hashlib.sha256(request.body).hexdigest(),
        }

    def predict(self, batch: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
        """The same again, after the configured delay."""
        for _ in batch:
            if self._allocate_bytes:
                self._kept.append(b"\x01" * self._allocate_bytes)
        time.sleep(self._delay_seconds)
        return batch
