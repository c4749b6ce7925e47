# SPDX-License-Identifier: Apache-2.0
"""A request that the worker holds."""

from dataclasses import dataclass
from enum import Enum
from typing import Any, Dict, Optional, Tuple

from gpuwarden.worker.faults import Failure
from gpuwarden.worker.frames import INLINE_LIMIT_BYTES, Frame
from gpuwarden.worker.link import Session
from gpuwarden.worker.outputs import WHOLE, Answer, Large
from gpuwarden.worker.pool import Prepared

LATE = Failure("deadline_exceeded", "its deadline passed")
RETURNED = Failure("returned", "this worker has not begun it: give it to another")


class Stage(Enum):
    """Where it is."""

    PREPARING = "preparing"
    PREPARED = "prepared"
    RUNNING = "running"
    LEAVING = "leaving"  # answered, and too large for a frame: it waits for a buffer


@dataclass
class Held:
    """One request, from its JOB to its RESULT.

    :ivar leaving: to be told when the CPU process is done with its buffer.
    :ivar awaited: until its caller goes while it runs.
    :ivar told: a piece of the answer has gone to the caller.
    """

    session: Session
    frame: Frame
    stage: Stage = Stage.PREPARING
    leaving: Optional[Failure] = None
    prepared: Optional[Prepared] = None
    awaited: bool = True
    told: bool = False

    @property
    def batch(self) -> Tuple[int, int]:
        """Its connection and its batch there."""
        return self.session.number, self.frame.batch

    @property
    def terms(self) -> Optional[Dict[str, Any]]:
        """Of a chat: how its caller wants the answer."""
        return self.prepared.terms if self.prepared else None

    @property
    def alike(self) -> str:
        """Its parameters; see Prepared."""
        return self.prepared.alike if self.prepared else ""

    @property
    def deadline_nanoseconds(self) -> int:
        """By CLOCK_BOOTTIME; 0: none."""
        return int(self.frame.meta.get("deadline_boottime_ns") or 0)

    @property
    def outlives_its_gateway(self) -> bool:
        """Whether another connection, or the next gateway, has a use for its answer."""
        return bool(self.frame.meta.get("ticket")) or self.session.instance is not None

    @property
    def is_plain(self) -> bool:
        """Whether its answer goes to its caller as it is, now or never."""
        meta = self.frame.meta
        return meta.get("form") != "chat" and not meta.get("ticket")


def result_of(job: Held, answer: Answer, predict_seconds: float) -> Tuple[Dict[str, Any], bytes]:
    """The meta and the body of the RESULT that answers a request."""
    timing = {
        "preprocess_seconds": round(job.prepared.seconds if job.prepared else 0.0, 6),
        "predict_seconds": round(predict_seconds, 6),
    }
    meta: Dict[str, Any] = {"ok": True, "answer": answer, "timing": timing}
    body = b""
    if isinstance(answer, Large):
        meta.update(answer={} if answer.part == WHOLE else answer.answer)
        meta.update(content=answer.content())
        body = bytes(answer.data) if len(answer.data) <= INLINE_LIMIT_BYTES else b""
    if job.terms:
        meta["terms"] = job.terms
    return meta, body
