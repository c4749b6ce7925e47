# SPDX-License-Identifier: Apache-2.0
"""What a JOB says of its request, in JSON."""

from functools import lru_cache

from gpuwarden.gateway.body import Body
from gpuwarden.gateway.buffers import Buffer
from gpuwarden.worker.compact import compact_json

LONGEST_CHARACTERS = 200  # of a media type whose words are kept


def job_meta(
    body: Body, deadline_boottime_ns: int, mapped: set[int], descriptors: list[int]
) -> bytes:
    """The meta of a request's JOB.

    :param deadline_boottime_ns: 0: none.
    :param mapped: buffers whose descriptor the worker was given; those that it is given now are
        added, and their descriptors to ``descriptors``.
    """
    is_plain = body.question is None and body.buffer is None and not (body.images or body.ticket)
    if is_plain and len(body.media_type) <= LONGEST_CHARACTERS:
        words = words_of(body.form, body.media_type)
        numbers = (deadline_boottime_ns, body.length)
        return b'%b,"deadline_boottime_ns":%d,"body":{"length":%d}}' % (words, *numbers)
    meta = {
        **said_of(body.form, body.question, body.media_type),
        "deadline_boottime_ns": deadline_boottime_ns,
        "body": _lent(body.buffer, body.offset, body.length, mapped, descriptors),
    }
    if body.images:
        meta["images"] = [
            {
                "id": image.identifier,
                "media_type": image.media_type,
                **_lent(image.buffer, image.offset, image.length, mapped, descriptors),
            }
            for image in body.images
        ]
    if body.ticket:
        meta["ticket"] = body.ticket
    return compact_json(meta).encode("ascii")


def said_of(form: str, question: str | None, media_type: str) -> dict[str, str]:
    """What its caller says of a request; what is not said is as for a worker of any version."""
    said = {"media_type": media_type}
    if form != "predict":
        said["form"] = form
    if question is not None:
        said["question"] = question
    return said


@lru_cache
def words_of(form: str, media_type: str) -> bytes:
    """The same in JSON that has no end yet; without a question, which is a patient's."""
    return compact_json(said_of(form, None, media_type)).encode("ascii")[:-1]


def _lent(
    buffer: Buffer | None, offset: int, length: int, mapped: set[int], descriptors: list[int]
) -> dict[str, object]:
    """Where bytes lie, for the worker; a buffer's descriptor goes along the first time."""
    if buffer is None:
        return {"length": length}
    where: dict[str, object] = {"length": length, "offset": offset}
    where |= {"buffer": buffer.number, "size": buffer.size}
    if buffer.number not in mapped:
        mapped.add(buffer.number)
        where["fd"] = True
        descriptors.append(buffer.descriptor)
    return where
