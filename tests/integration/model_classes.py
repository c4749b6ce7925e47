"""Model classes that the worker's tests run: each request says what to do with it.

``say_*`` and ``wait_*`` name a FIFO that a byte is written to or awaited from.
"""

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

from gpuwarden.worker.engine import Context, Engine, Request


def perform(stage: str, parameters: dict[str, Any]) -> None:
    """What the request wants in this stage."""
    if f"say_in_{stage}" in parameters:
        with Path(parameters[f"say_in_{stage}"]).open("wb", buffering=0) as gate:
            gate.write(b".")
    if f"wait_in_{stage}" in parameters:
        with Path(parameters[f"wait_in_{stage}"]).open("rb", buffering=0) as gate:
            gate.read(1)
    if f"raise_in_{stage}" in parameters:
        text = parameters[f"raise_in_{stage}"]
        logging.getLogger("some.library").error("it holds %s", text)
        warnings.warn(f"it holds {text}", stacklevel=2)
        raise ValueError(text)
    if f"die_in_{stage}" in parameters:
        os.kill(os.getpid(), signal.SIGKILL)


class Scripted(Engine):
    """Does in each stage what the request's parameters say."""

    simulated_vram_bytes = 1000

    def load(self, context: Context) -> None:
        perform("load", context.options)

    def prepare(self) -> None:
        perform("prepare", self.context.options)

    def preprocess(self, request: Request) -> dict[str, Any]:
        perform("preprocess", request.parameters)
        digest = hashlib.sha256(request.body).hexdigest()
        return {"parameters": request.parameters, "sha256": digest, "prepared_by": os.getpid()}

    def predict(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for item in batch:
            perform("predict", item["parameters"])
        return [{**item, "batch": len(batch)} for item in batch]

    def postprocess(self, result: dict[str, Any]) -> dict[str, Any]:
        return {**result, "filling": "x" * result["parameters"].get("answer_bytes", 0)}


class Whole(Engine):
    """Hands the request itself over, with its body."""

    def load(self, context: Context) -> None:
        pass

    def predict(self, batch: list[Request]) -> list[dict[str, Any]]:
        return [{"sha256": hashlib.sha256(request.body).hexdigest()} for request in batch]


class Announcing(Whole):
    """Says by the FIFOs of its options that it predicts, and waits there."""

    def predict(self, batch: list[Request]) -> list[dict[str, Any]]:
        options = self.context.options
        perform(
            "predict",
            {"say_in_predict": options["announce"], "wait_in_predict": options["hold"]},
        )
        return super().predict(batch)


class Starting(Whole):
    """Starts a thread and a process on the GPU thread, as libraries do, and tells of them."""

    def predict(self, batch: list[Request]) -> list[dict[str, Any]]:
        seen: dict[str, Any] = {"gpu": _scheduling()}
        thread = threading.Thread(target=lambda: seen.update(thread=_scheduling()))
        thread.start()
        thread.join()
        child = [sys.executable, "-c", "import os; print([os.sched_getscheduler(0), os.nice(0)])"]
        seen["process"] = json.loads(subprocess.check_output(child))
        return [seen for _ in batch]


def _scheduling() -> list[int]:
    """Policy and nice of the calling thread."""
    nice = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    return [os.sched_getscheduler(0), nice]


class Answering(Whole):
    """Has a card that answers."""

    def canary(self) -> bool:
        return True


class Lost(Whole):
    """Has a card that is gone."""

    def canary(self) -> bool:
        raise RuntimeError("CUDA error: secret")


class Quoting(Whole):
    """Quotes its requests wherever a library could; fails on JPEGs here, on DICOM files there."""

    def preprocess(self, request: Request) -> str:
        said = f"{request.media_type}: {request.question} {bytes(request.body)!r}"
        logging.getLogger("some.library").error("it holds %s", said)
        warnings.warn(f"it holds {said}", stacklevel=2)
        if request.media_type == "image/jpeg":
            raise ValueError(said)
        return said

    def predict(self, batch: list[str]) -> list[dict[str, Any]]:  # type: ignore[override] # texts
        for said in batch:
            logging.getLogger("some.library").error("it holds %s", said)
            if said.startswith("application/dicom"):
                raise ValueError(said)
        return [{"text": said} for said in batch]


class Greedy(Whole):
    """Takes as many bytes for a request as its question says."""

    def preprocess(self, request: Request) -> dict[str, Any]:
        return {"taken": len(bytes(int(request.question or 0)))}

    def predict(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:  # type: ignore[override] # sizes
        return batch
