"""What a CPU process is to prepare, as a JOB of the gateway's says it."""

from typing import Any, Dict, List

from gpuwarden.worker.channel import close_all
from gpuwarden.worker.frames import Frame
from gpuwarden.worker.link import Session
from gpuwarden.worker.pool import StoredImage, Task


def task_of(serial: int, session: Session, frame: Frame, descriptors: List[int]) -> Task:
    """The task that a JOB means.

    :raises BufferProblem: it names a buffer that isn't there.
    :raises KeyError, TypeError, ValueError: it is malformed.
    """
    spare = list(descriptors)
    try:
        body = frame.meta.get("body")
        if not isinstance(body, dict):
            raise ValueError("body")
        content: Any = frame.body
        if "buffer" in body:
            content = session.buffers.locate(body, _own(body, spare))
        images = tuple(
            StoredImage(
                str(image["id"]),
                str(image["media_type"]),
                session.buffers.locate(image, _own(image, spare)),
            )
            for image in frame.meta.get("images") or []
        )
    finally:
        close_all(spare)
    meta = {
        "form": str(frame.meta.get("form") or "predict"),
        "question": frame.meta.get("question"),
        "media_type": str(frame.meta.get("media_type") or ""),
        "parameters": dict(frame.meta.get("parameters") or {}),
    }
    deadline = int(frame.meta.get("deadline_boottime_ns") or 0)
    return Task(serial, meta, content, images, deadline)


def _own(where: Dict[str, Any], descriptors: List[int]) -> List[int]:
    """Takes the descriptor that belongs to a buffer out of those that came with a JOB."""
    return [descriptors.pop(0)] if where.get("fd") and descriptors else []
