"""What the headers alone decide: who may ask, and what body is about to come.

Everything here happens before the first byte of the body is read, so that a refusal costs nothing.
"""

import functools
import ipaddress
from dataclasses import dataclass

from aiohttp.web import BaseRequest

from gpuwarden.gateway.errors import ApiError
from gpuwarden.gateway.multipart import boundary_of, parse_header
from gpuwarden.gateway.settings import GatewaySettings

IMAGE_TYPES = ("application/dicom", "image/png", "image/jpeg", "application/octet-stream")
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")
# One character may take six bytes of JSON, and a JOB's meta has room for 96 KiB.
QUESTION_LIMIT_BYTES = 12 << 10


@dataclass(frozen=True)
class Upload:
    """What a caller is about to send.

    :param length: bytes of the body, None where it comes in chunks.
    :param boundary: the delimiter of a multipart body, None for a raw image.
    :param fields: what further parts a multipart body may have.
    """

    length: int | None
    media_type: str
    boundary: bytes | None
    question: str | None
    fields: tuple[str, ...] = ()


def check_caller(request: BaseRequest, header_limit_bytes: int) -> None:
    """Refuse browsers, rebound names and oversized headers. Raises ApiError."""
    size = sum(len(name) + len(value) + 4 for name, value in request.raw_headers)
    if size + len(request.raw_path) > header_limit_bytes:
        raise ApiError("headers_too_large", f"headers may have {header_limit_bytes} bytes in all")
    if "Origin" in request.headers:
        raise ApiError("forbidden", "pages in a browser may not call this service", param="Origin")
    address = request.transport and request.transport.get_extra_info("sockname")
    if not isinstance(address, tuple):
        return  # a UNIX socket: its file's mode says who may
    if not is_loopback(address[0]):
        raise ApiError("forbidden", "only loopback is served: no API key is set up on this node")
    if host_name(request.headers.get("Host", "")) not in LOOPBACK_NAMES:
        raise ApiError(
            "forbidden", f"Host must be one of {', '.join(LOOPBACK_NAMES)}", param="Host"
        )


@functools.cache
def is_loopback(address: str) -> bool:
    """Whether one of our own listening addresses is reached from this node alone."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def host_name(host: str) -> str:
    """The name in a Host header, without the port."""
    name, separator, port = host.rpartition(":")
    if separator and (port.isdigit() or not port):
        return name.lower()
    return host.lower()


def examine(request: BaseRequest, settings: GatewaySettings) -> Upload:
    """What ``POST /predict`` is about to receive. Raises ApiError where that can't be taken."""
    check_encoding(request)
    check_query(request, ("question",))
    length = body_length(request, settings.upload_limit_bytes)
    media_type, boundary = body_type(request.headers.get("Content-Type", IMAGE_TYPES[-1]))
    return Upload(length, media_type, boundary, question_of(request))


def examine_job(request: BaseRequest, settings: GatewaySettings) -> Upload:
    """What ``POST /v1/jobs`` is about to receive. Raises ApiError."""
    check_encoding(request)
    check_query(request, ("question", "priority"))
    length = body_length(request, settings.upload_limit_bytes)
    media_type, boundary = body_type(request.headers.get("Content-Type", IMAGE_TYPES[-1]))
    return Upload(length, media_type, boundary, question_of(request), fields=("priority",))


def check_encoding(request: BaseRequest) -> None:
    """Refuse compressed bodies: what they unfold to is known too late. Raises ApiError."""
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding != "identity":
        raise ApiError(
            "unsupported_media_type", "send the body uncompressed", param="Content-Encoding"
        )


def check_query(request: BaseRequest, allowed: tuple[str, ...]) -> None:
    """Refuse what the query may not hold. Raises ApiError."""
    unknown = sorted(set(request.query) - set(allowed))
    if unknown:
        text = f"the query may hold {' and '.join(allowed)} alone" if allowed else "no query here"
        raise ApiError("invalid_request", text, param=unknown[0][:64])


def body_type(header: str) -> tuple[str, bytes | None]:
    """Media type of the body, and the boundary of a multipart one. Raises ApiError."""
    if header in IMAGE_TYPES:
        return header, None
    content_type = parse_header(header)
    media_type = content_type.get_content_type()
    if media_type == "multipart/form-data":
        return media_type, boundary_of(content_type)
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
        raise empty("body")
    return length


def question_of(request: BaseRequest) -> str | None:
    """The question in the query or in X-Question, if any. Raises ApiError."""
    questions = request.query.getall("question", []) + request.headers.getall("X-Question", [])
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
