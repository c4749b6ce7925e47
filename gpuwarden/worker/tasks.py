# SPDX-License-Identifier: Apache-2.0
"""What a CPU process is to prepare, as a JOB of the gateway's says it."""

import logging
from typing import Any, Dict, List, Mapping, Tuple, Union

from gpuwarden.worker.buffers import BufferProblem
from gpuwarden.worker.channel import close_all
from gpuwarden.worker.faults import Failure
from gpuwarden.worker.frames import Frame
from gpuwarden.worker.link import Session
from gpuwarden.worker.pool import StoredImage, Task

_log = logging.getLogger(__name__)


def task_or_failure(
    serial: int, session: Session, frame: Frame, descriptors: List[int]
) -> Union[Task, Failure]:
    """The task that a JOB means, or what is wrong with it."""
    try:
        return task_of(serial, session, frame, descriptors)
    except BufferProblem as problem:
        _log.error("a request was refused: %s", problem)
        return Failure("unknown_buffer", str(problem))
    except (KeyError, TypeError, ValueError) as error:
        _log.error("a request was refused: its JOB is malformed (%s)", type(error).__name__)
        return Failure("bad_request", "the gateway's JOB is malformed")


def task_of(serial: int, session: Session, frame: Frame, descriptors: List[int]) -> Task:
    """The task that a JOB means.

    :raises BufferProblem: it names a buffer that isn't there.
    :raises KeyError, TypeError, ValueError: it is malformed.
    """
    said, spare = frame.meta, list(descriptors)
    try:
        body = said.get("body")
        if not isinstance(body, dict):
            raise ValueError("body")
        content: Any = frame.body
        if "buffer" in body:
            content = session.buffers.locate(body, _own(body, spare))
        images = _images(session, said["images"], spare) if said.get("images") else ()
    finally:
        close_all(spare)
    meta = {
        "form": str(said.get("form") or "predict"),
        "question": said.get("question"),
        "media_type": str(said.get("media_type") or ""),
        "parameters": parameters_of(said),
    }
    return Task(serial, meta, content, images, int(said.get("deadline_boottime_ns") or 0))


def parameters_of(said: Mapping[str, Any]) -> Dict[str, Any]:
    """A JOB's parameters. Raises TypeError, ValueError where they are none."""
    return dict(said.get("parameters") or {})


def _images(session: Session, images: Any, descriptors: List[int]) -> Tuple[StoredImage, ...]:
    return tuple(
        StoredImage(
            str(image["id"]),
            str(image["media_type"]),
            session.buffers.locate(image, _own(image, descriptors)),
        )
        for image in images
    )


def _own(where: Dict[str, Any], descriptors: List[int]) -> List[int]:
    """Takes the descriptor that belongs to a buffer out of those that came with a JOB."""
    return [descriptors.pop(0)] if where.get("fd") and descriptors else []
