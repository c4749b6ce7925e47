# SPDX-License-Identifier: Apache-2.0
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
import traceback
import warnings
from pathlib import Path
from typing import Any

from gpuwarden.worker.engine import Context, Engine, Output, Request, SlotEngine


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
    if f"break_card_in_{stage}" in parameters:
        raise AcceleratorError("CUDA error: device-side assert triggered")
    if f"die_in_{stage}" in parameters:
        os.kill(os.getpid(), signal.SIGKILL)


class AcceleratorError(RuntimeError):
    """Named as torch's."""


class Scripted(Engine):
    """Does in each stage what the request's parameters say."""

    simulated_vram_bytes = 1000
    batch_mixed = True

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


class Quick(Scripted):
    """The same on the loop's thread, which it tells."""

    quick = True

    def predict(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        name = threading.current_thread().name
        return [{**one, "thread": name} for one in super().predict(batch)]


class Uniform(Scripted):
    """Generates a batch by one set of parameters."""

    batch_mixed = False


class Filling(Engine):
    """Answers with as many bytes as the question says, and as what: ``json 100000``."""

    def load(self, context: Context) -> None:
        pass

    def preprocess(self, request: Request) -> str:
        return request.question or ""

    def predict(self, batch: list[str]) -> list[str]:
        perform("predict", self.context.options)
        return batch

    def postprocess(self, result: str) -> dict[str, Any] | Output:
        kind, size = result.split()
        if kind == "json":
            return {"filling": "é" * (int(size) // 6)}  # six bytes of JSON each
        if kind == "levels":
            return nested(int(size))
        if kind == "text":
            return {"text": "é" * (int(size) // 6), "usage": {"completion_tokens": 7}}
        return Output(kind, filling(int(size)), {"bytes": int(size)})


def nested(levels: int) -> dict[str, Any]:
    """An object in an object in an object."""
    answer: dict[str, Any] = {}
    for _ in range(levels - 1):
        answer = {"within": answer}
    return answer


class Short(Engine):
    """Reads nothing before ``predict``; says whether its thread took the request by itself."""

    def load(self, context: Context) -> None:
        pass

    def predict(self, batch: list[Request]) -> list[dict[str, Any]]:
        for request in batch:
            perform("predict", request.parameters)
        listens = takes_by_itself()
        return [
            {
                "sha256": hashlib.sha256(request.body).hexdigest(),
                "listens": listens,
                "batch": len(batch),
                "filling": "x" * request.parameters.get("answer_bytes", 0),
            }
            for request in batch
        ]


class Reciting(Engine):
    """Answers with what it was asked, by itself and at once."""

    batch_mixed = True

    def load(self, context: Context) -> None:
        pass

    def predict(self, batch: list[Request]) -> list[dict[str, Any]]:
        listens = takes_by_itself()
        return [
            {
                "text": f"{request.question} {hashlib.sha256(request.body).hexdigest()}",
                "listens": listens,
            }
            for request in batch
        ]


def takes_by_itself() -> bool:
    """Whether the GPU thread, which asks, reads from the gateway itself."""
    return any(frame.f_code.co_name == "_listen" for frame, _ in traceback.walk_stack(None))


class Diarist(Filling):
    """Writes down in ``diary`` what it has worked on; what ``*_in_end`` says is done then."""

    def predict(self, batch: list[str]) -> list[str]:
        with Path(self.context.options["diary"]).open("a", encoding="utf-8") as diary:
            diary.writelines(f"{one}\n" for one in batch)
        perform("end", self.context.options)
        return batch


def filling(size: int) -> bytes:
    """Bytes that differ from page to page."""
    return b"".join((b"%015d\n" % page) * 256 for page in range(size // 4096 + 1))[:size]


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


class Stepping(SlotEngine):
    """Takes as many steps for a request as its body says, which is a table for ``perform``, too."""

    batch_pixels = 1_000_000

    def load(self, context: Context) -> None:
        self.rows: dict[int, dict[str, Any]] = {}

    def preprocess(self, request: Request) -> dict[str, Any]:
        wanted: dict[str, Any] = json.loads(bytes(request.body) or request.question or "{}")
        return {"steps": 1, "most": 0, **wanted}

    def join(self, slot: int, item: dict[str, Any]) -> None:
        self.rows[slot] = item
        perform("join", item)

    def step(self) -> dict[int, Any]:
        for slot, row in self.rows.items():
            perform("step", row)
            row["steps"] -= 1
            self.tell(slot, row.get("piece", ""))
            row["most"] = max(row["most"], len(self.rows))
        through = {slot: row for slot, row in self.rows.items() if row["steps"] == 0}
        return {slot: {"slot": slot, "most": row["most"]} for slot, row in through.items()}

    def leave(self, slot: int) -> None:
        perform("leave", self.rows.pop(slot, {}))


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


class Allocator:
    """A small card's allocator: what requests take is free again after them, caches are not."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.cached_bytes = self.peak_bytes = self.failures = self.allocations = 0

    def run(self, items: list[dict[str, Any]]) -> None:
        """Have all of it in memory at once."""
        taken = sum(item.get("takes", 0) for item in items)
        if taken + self.cached_bytes > self.limit_bytes:
            self.failures += 1
            raise OutOfMemoryError("CUDA out of memory. Tried to allocate for Jane Roe")
        self.allocations += len(items)
        self.peak_bytes = max(self.peak_bytes, taken)
        self.cached_bytes += sum(item.get("leaves", 0) for item in items)

    def figures(self) -> dict[str, int]:
        return {
            "reserved_bytes": self.cached_bytes,
            "allocated_bytes": 0,
            "peak_bytes": self.peak_bytes,
            "inactive_split_bytes": self.cached_bytes // 2,
            "limit_bytes": self.limit_bytes,
            "num_device_alloc": self.allocations,
            "num_alloc_retries": 0,
            "num_ooms": self.failures,
        }


class Hoarding(Engine):
    """Takes and leaves as many bytes for a request as its body says, on a card of 1,000."""

    def load(self, context: Context) -> None:
        self.allocator = Allocator(1000)
        self.drops = 0

    def preprocess(self, request: Request) -> dict[str, Any]:
        wanted: dict[str, Any] = json.loads(bytes(request.body))
        return wanted

    def predict(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for item in batch:
            perform("predict", item)
        self.allocator.run(batch)
        return [{"together": len(batch), "drops": self.drops} for _ in batch]

    def memory_figures(self) -> dict[str, int]:
        return self.allocator.figures()

    def drop_caches(self) -> None:
        self.drops += 1
        self.allocator.cached_bytes = 0


class HoardingSteps(Stepping):
    """The same with slots: ``takes`` is held from the prefill on, ``grows`` more with each step."""

    def load(self, context: Context) -> None:
        super().load(context)
        self.allocator = Allocator(1000)

    def join(self, slot: int, item: dict[str, Any]) -> None:
        super().join(slot, item)
        self.allocator.run([*self.rows.values()])

    def step(self) -> dict[int, Any]:
        for row in self.rows.values():
            row["takes"] = row.get("takes", 0) + row.get("grows", 0)
        self.allocator.run([*self.rows.values()])
        return super().step()

    def memory_figures(self) -> dict[str, int]:
        return self.allocator.figures()


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
