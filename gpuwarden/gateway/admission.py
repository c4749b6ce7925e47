# SPDX-License-Identifier: Apache-2.0
"""What the headers alone decide: what body is about to come, and whether it is taken.

Everything here happens before the first byte of the body is read, so that a refusal costs nothing.
"""

import re
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from aiohttp import HttpVersion11
from aiohttp.web import BaseRequest

from gpuwarden.gateway.errors import ApiError
from gpuwarden.gateway.multipart import boundary_of, media_type_of
from gpuwarden.gateway.settings import GatewaySettings

IMAGE_TYPES = ("application/dicom", "image/png", "image/jpeg", "application/octet-stream")
CHAT_TYPE = "application/json"
REFERENCE = re.compile("gpuwarden://([0-9a-f]{32})")
# One character may take six bytes of JSON, and a JOB's meta has room for 96 KiB.
QUESTION_LIMIT_BYTES = 12 << 10


@dataclass(slots=True)
class Upload:
    """What a caller is about to send.

    :param length: bytes of the body, None where it comes in chunks.
    :param boundary: the delimiter of a multipart body, None for any other.
    :param image: the id of an image that was sent before, where the query names one.
    :param fields: what further parts a multipart body may have.
    """

    length: int | None
    media_type: str
    boundary: bytes | None
    question: str | None
    form: Literal["predict", "chat"] = "predict"
    image: str | None = None
    fields: tuple[str, ...] = ()


def check_size(request: BaseRequest, header_limit_bytes: int) -> None:
    """Refuse oversized headers. Raises ApiError."""
    size = sum(map(len, chain.from_iterable(request.raw_headers))) + 4 * len(request.raw_headers)
    if size + len(request.raw_path) > header_limit_bytes:
        text = f"headers may have {header_limit_bytes} bytes in all"
        raise ApiError("headers_too_large", text, param="headers")


def check_framing(request: BaseRequest) -> None:
    """Refuse what another HTTP than 1.0 and 1.1 would frame in another way. Raises ApiError."""
    if request.version > HttpVersion11:
        raise ApiError("invalid_request", "HTTP/1.1 is spoken here", param="version")
    if request.version < HttpVersion11 and "Transfer-Encoding" in request.headers:
        text = "HTTP/1.0 knows no chunks: say Content-Length"
        raise ApiError("invalid_request", text, param="Transfer-Encoding")


def examine(request: BaseRequest, settings: GatewaySettings) -> Upload:
    """What ``POST /predict`` is about to receive. Raises ApiError where that can't be taken."""
    return examine_question(request, settings, ())


def examine_job(request: BaseRequest, settings: GatewaySettings) -> Upload:
    """What ``POST /v1/jobs`` is about to receive. Raises ApiError."""
    return examine_question(request, settings, ("priority",))


def examine_question(
    request: BaseRequest, settings: GatewaySettings, fields: tuple[str, ...]
) -> Upload:
    """An image with its question that is about to come, or is here. Raises ApiError.

    :param fields: what else the query, or a form's parts, may say.
    """
    check_encoding(request)
    check_query(request, ("question", "image", *fields))
    question, image = question_of(request), image_of(request)
    if image is not None:
        if request.body_exists and request.content_length != 0:
            raise ApiError("invalid_request", "one image a request", param="image")
        return Upload(0, IMAGE_TYPES[-1], None, question, image=image)
    length = body_length(request, settings.upload_limit_bytes)
    media_type, boundary = body_type(request.headers.get("Content-Type", IMAGE_TYPES[-1]))
    return Upload(length, media_type, boundary, question, fields=fields)


def examine_image(request: BaseRequest, settings: GatewaySettings) -> Upload:
    """What ``POST /v1/images`` is about to receive. Raises ApiError."""
    check_encoding(request)
    check_query(request, ())
    length = body_length(request, settings.upload_limit_bytes)
    media_type, boundary = body_type(request.headers.get("Content-Type", IMAGE_TYPES[-1]))
    return Upload(length, media_type, boundary, None)


def examine_chat(request: BaseRequest, settings: GatewaySettings) -> Upload:
    """What ``POST /v1/chat/completions`` is about to receive. Raises ApiError."""
    check_encoding(request)
    check_query(request, ())
    length = body_length(request, settings.upload_limit_bytes)
    header = request.headers.get("Content-Type", CHAT_TYPE)
    if header != CHAT_TYPE and media_type_of(header) != CHAT_TYPE:
        raise ApiError("unsupported_media_type", f"send {CHAT_TYPE}", param="Content-Type")
    return Upload(length, CHAT_TYPE, None, None, form="chat")


def check_encoding(request: BaseRequest) -> None:
    """Refuse compressed bodies: what they unfold to is known too late. Raises ApiError."""
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding != "identity":
        raise ApiError(
            "unsupported_media_type", "send the body uncompressed", param="Content-Encoding"
        )


def check_query(request: BaseRequest, allowed: tuple[str, ...]) -> None:
    """Refuse what the query may not hold. Raises ApiError."""
    if not request.query_string:
        return
    unknown = sorted(set(request.query) - set(allowed))
    if unknown:
        text = f"the query may hold {' and '.join(allowed)} alone" if allowed else "no query here"
        raise ApiError("invalid_request", text, param=unknown[0][:64])


def image_of(request: BaseRequest) -> str | None:
    """The id of the image that the query refers to, if any. Raises ApiError."""
    references = request.query.getall("image", []) if request.query_string else []
    if not references:
        return None
    match = REFERENCE.fullmatch(references[0])
    if match is None or len(references) > 1:
        raise ApiError("invalid_request", "image is gpuwarden://ID, once", param="image")
    return match[1]


def body_type(header: str) -> tuple[str, bytes | None]:
    """Media type of the body, and the boundary of a multipart one. Raises ApiError."""
    if header in IMAGE_TYPES:
        return header, None
    media_type = media_type_of(header)
    if media_type == "multipart/form-data":
        return media_type, boundary_of(header)
    if media_type not in IMAGE_TYPES:
        raise unsupported(media_type, "Content-Type")
    return media_type, None


def body_length(request: BaseRequest, limit_bytes: int) -> int | None:
    """The announced length; None for a body in chunks. Raises ApiError: 400, 411, 413."""
    if "Transfer-Encoding" in request.headers:
        if request.headers["Transfer-Encoding"].strip().lower() != "chunked":
            raise ApiError("invalid_request", "only chunked is known", param="Transfer-Encoding")
        return None
    # The parser has refused whatever is not a number, or both headers at once.
    length = request.content_length
    if length is None:
        raise ApiError("length_required", "say Content-Length", param="Content-Length")
    if length > limit_bytes:
        raise too_large(limit_bytes)
    if length == 0:
        raise ApiError("invalid_request", "the body is empty", param="body")
    return length


def question_of(request: BaseRequest) -> str | None:
    """The question in the query or in X-Question, if any. Raises ApiError."""
    questions = request.headers.getall("X-Question", [])
    if request.query_string:
        questions = request.query.getall("question", []) + questions
    if len(questions) > 1:
        raise second_question()
    return check_question(questions[0]) if questions else None


def check_question(text: str) -> str:
    """``text`` if it can be asked. Raises ApiError."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ApiError("invalid_request", "the question is not UTF-8", param="question") from None
    if size > QUESTION_LIMIT_BYTES:
        raise question_too_long(size)
    return text


def question_too_long(size: int) -> ApiError:
    """The error for a question over the limit."""
    return ApiError(
        "invalid_request",
        f"the question has {size} bytes, {QUESTION_LIMIT_BYTES} are allowed",
        param="question",
    )


def second_question() -> ApiError:
    """The error for a question that comes twice."""
    return ApiError("invalid_request", "the question may be given once", param="question")


def unsupported(media_type: str, param: str) -> ApiError:
    """The error for a type that no image has."""
    return ApiError(
        "unsupported_media_type",
        f"{media_type[:64]} is not taken; send one of {', '.join(IMAGE_TYPES)}"
        " or multipart/form-data with the parts image and question",
        param=param,
    )


def too_large(limit_bytes: int) -> ApiError:
    """The error for a body over the limit."""
    return ApiError(
        "body_too_large",
        f"the body may have {limit_bytes} bytes ({limit_bytes / (1 << 20):g} MiB);"
        " [gateway] body_limit_bytes and pool_bytes set the limit",
        param="body",
    )


def empty(param: str) -> ApiError:
    """The error for an image of no bytes."""
    return ApiError("invalid_request", "the image is empty: send its bytes", param=param)
