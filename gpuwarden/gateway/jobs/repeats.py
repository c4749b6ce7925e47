# SPDX-License-Identifier: Apache-2.0
"""Whether a submission repeats the one that came before under its Idempotency-Key.

It does if it asks the same of the same image. What is kept to tell is a keyed hash. The image's own
hash may be told ahead (``Content-Digest``, RFC 9530), so that a repeat needs no second upload.
"""

import base64
import re

from aiohttp.web import BaseRequest

from gpuwarden.gateway.admission import Upload
from gpuwarden.gateway.errors import ApiError
from gpuwarden.gateway.jobs.values import JobRow

HEADER = "Content-Digest"
SHA_256 = re.compile(r"(?:^|,)\s*sha-256=([^,;]*)")
SHA_256_BYTES = 32


def told_digest(request: BaseRequest, upload: Upload) -> bytes | None:
    """The SHA-256 of the image that is about to come, where the headers tell it. Raises ApiError.

    Of a form they tell the whole body's, which is another one each time; of an image that was sent
    before there is no body.
    """
    if upload.boundary is not None or upload.image is not None:
        return None
    found = SHA_256.search(", ".join(request.headers.getall(HEADER, [])))
    if found is None:
        return None
    value = found[1].strip()
    try:
        digest = base64.b64decode(value.strip(":"), validate=True)
    except ValueError:  # no base64, or not even ASCII
        digest = b""
    if value != f":{value.strip(':')}:" or len(digest) != SHA_256_BYTES:
        raise ApiError("invalid_request", "sha-256=:BASE64: is the form", param=HEADER)
    return digest


def check_digest(told: bytes | None, found: bytes) -> None:
    """Refuse an image that is not the one that was announced. Raises ApiError."""
    if told not in (None, found):
        text = "the image is not the one whose SHA-256 was told: it was changed on its way"
        raise ApiError("invalid_request", text, param=HEADER)


def check_same(known: JobRow, asked: bytes | None) -> None:
    """Refuse what is no repeat of a known job, though it came with its key. Raises ApiError.

    :param asked: the keyed hash of image, type and question.
    """
    if known.request not in (None, asked):
        raise ApiError(
            "idempotency_mismatch",
            "this key came with another image or question before: choose a new one",
            param="Idempotency-Key",
        )
