# SPDX-License-Identifier: Apache-2.0
"""Bodies whose frame is right and whose content is not, and the error that each must get."""

import base64
import io
import json
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import pydicom

from tests.integration.test_gateway_and_worker import ct_image

MODEL = "test-model"
NOBODY = "gpuwarden://" + "0" * 32
IMAGE = "messages[0].content[1].image_url.url"
JSON = "application/json"
FORM = "multipart/form-data; boundary=b"
RAW = "application/octet-stream"
NUMBER = "1" * 5000  # more digits than Python reads
NO_UNICODE = "\xe9\udcff*=x"  # a letter of UTF-8, and a byte of none


@dataclass(frozen=True)
class Wrong:
    """One of them, with what it must be answered."""

    name: str
    body: bytes
    status: int
    kind: str
    param: str
    path: str = "/predict"
    media_type: str = RAW


def png_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + header
        + struct.pack(">I", zlib.crc32(header))
    )


def png_bomb() -> bytes:
    """50,000 x 50,000 pixels, that is 7.5 GB, in a file of some kilobytes that is whole."""
    rows = zlib.compress(bytes(10_000_000), 9)
    data = b"IDAT" + rows
    chunk = struct.pack(">I", len(rows)) + data + struct.pack(">I", zlib.crc32(data))
    return png_header(50_000, 50_000) + chunk


def dicom_of(**changes: Any) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(ct_image()))
    for name, value in changes.items():
        setattr(dataset, name, value)
    target = io.BytesIO()
    dataset.save_as(target)
    return target.getvalue()


def url(image: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{base64.b64encode(image).decode()}"


def asking(*urls: str, text: Any = "?") -> list[Any]:
    parts = [{"type": "image_url", "image_url": {"url": one}} for one in urls]
    return [{"role": "user", "content": [{"type": "text", "text": text}, *parts]}]


def part(name: str, content: bytes, *lines: str) -> bytes:
    head = "\r\n".join([f'Content-Disposition: form-data; name="{name}"', *lines])
    return b"--b\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n"


def image_of(name: str, body: bytes, kind: str = "bad_image", media_type: str = RAW) -> Wrong:
    return Wrong(name, body, 422, kind, "image", media_type=media_type)


def form(name: str, param: str, *parts: bytes, path: str = "/predict") -> Wrong:
    body = b"".join(parts) + b"--b--\r\n"
    return Wrong(name, body, 400, "invalid_request", param, path, FORM)


def of_type(name: str, media_type: str, path: str = "/predict") -> Wrong:
    return Wrong(name, b"x", 400, "invalid_request", "Content-Type", path, media_type)


def chat(
    name: str, param: str, kind: str = "invalid_request", status: int = 400, **changes: Any
) -> Wrong:
    document = {"model": MODEL, "messages": asking(url(ct_image())), **changes}
    return text(name, param, json.dumps(document).encode(), kind, status)


def text(
    name: str, param: str, body: bytes, kind: str = "invalid_request", status: int = 400
) -> Wrong:
    return Wrong(name, body, status, kind, param, "/v1/chat/completions", JSON)


CT, OCTETS = part("image", ct_image()), "Content-Type: application/octet-stream"
DEEP = b'{"model": "test-model", "messages": ' + b"[" * 200_000
HALF = b'{"model": "test-model", "messages": [{"role": "user", "content": "?"}], "\\ud800": 1}'
DIGITS = b'{"model": "test-model", "messages": [], "seed": ' + b"9" * 900_000 + b"}"

IMAGES = (
    image_of("no-image", b"this is no image"),
    image_of("html", b"<html><body>not found</body></html>"),
    image_of("dicom-without-its-mark", bytes(2000), media_type="application/dicom"),
    image_of("dicom-cut", ct_image()[:3000]),
    image_of("dicom-cut-in-its-head", ct_image()[:140]),
    image_of("png-cut", png_header(10, 10)),
    image_of("png-cut-in-its-head", png_header(10, 10)[:12]),
    image_of("png-of-nothing", png_header(0, 0)),
    image_of("jpeg-cut", b"\xff\xd8\xff\xe0\x00\x10JFIF\x00"),
    image_of("png-bomb", png_bomb(), "too_many_pixels"),
    image_of("png-header-bomb", png_header(2**31 - 1, 2**31 - 1), "too_many_pixels"),
    image_of("dicom-bomb", dicom_of(Rows=65535, Columns=65535), "too_many_pixels"),
    image_of("dicom-of-frames", dicom_of(NumberOfFrames="99999999"), "too_many_pixels"),
)

FORMS = (
    form("no-image-part", "body", part("question", b"why")),
    form("image-empty", "image", part("image", b"")),
    form("two-images", "image", CT, CT),
    form("two-questions", "question", CT, part("question", b"a"), part("question", b"b")),
    form("question-not-unicode", "question", CT, part("question", b"\xff\xfe")),
    form("question-too-long", "question", CT, part("question", b"q" * 13_000)),
    form("part-unknown", "passwd", CT, part("passwd", b"x")),
    form("part-base64", "image", part("image", b"YWJj", "Content-Transfer-Encoding: base64")),
    form("part-quoted", "image", part("image", b"=41", "Content-Transfer-Encoding: x-nothing")),
    Wrong(
        "part-of-digits",
        f"--b\r\nContent-Disposition: form-data; name*{NUMBER}=image\r\n\r\na\r\n--b--".encode(),
        400,
        "invalid_request",
        "body",
        media_type=FORM,
    ),
    form("question-for-an-image", "question", CT, part("question", b"a"), path="/v1/images"),
    form("reference-for-an-image", "image", part("image", NOBODY.encode()), path="/v1/images"),
    form("priority-no-number", "priority", CT, part("priority", b"high"), path="/v1/jobs"),
    form("priority-of-digits", "priority", CT, part("priority", b"9" * 99), path="/v1/jobs"),
    Wrong(
        "part-of-text",
        part("image", b"abc", "Content-Type: text/html") + b"--b--",
        415,
        "unsupported_media_type",
        "image",
        media_type=FORM,
    ),
    Wrong(
        "reference-unknown",
        part("image", NOBODY.encode()) + b"--b--",
        404,
        "image_not_found",
        "image",
        media_type=FORM,
    ),
)

TYPES = (
    of_type("type-of-a-strange-charset", "multipart/form-data; boundary*=idna''abc"),
    of_type("type-of-digits", f"multipart/form-data; boundary*{NUMBER}=x"),
    of_type("type-no-unicode", NO_UNICODE),
    of_type("type-no-unicode-of-a-chat", NO_UNICODE, "/v1/chat/completions"),
    of_type("type-no-unicode-of-an-image", NO_UNICODE, "/v1/images"),
    of_type("type-no-unicode-of-a-job", NO_UNICODE, "/v1/jobs"),
    # Its type is read, and its parameters are nothing to anybody.
    Wrong(
        "type-of-a-mode",
        b"x",
        400,
        "invalid_request",
        "body",
        "/api/thermal_mode",
        f"{JSON}; a*{NUMBER}=x",
    ),
)

CHATS = (
    text("no-json", "body", b"hello"),
    text("json-cut", "body", b'{"model": "test-model", "messages": [{"role": "us'),
    text("json-list", "body", b"[1, 2]"),
    text("json-with-a-tail", "body", b'{"model": "test-model"} {}'),
    text("json-of-constants", "body", b'{"model": "test-model", "temperature": NaN}'),
    text("json-deep", "body", DEEP),
    text("json-of-digits", "body", DIGITS),
    text("json-not-unicode", "body", b'{"model": "test-model", "messages": "\xff"}'),
    text("json-in-utf-16", "body", '{"model": "test-model"}'.encode("utf-16")),
    text("json-of-too-much-text", "body", json.dumps({"messages": "x" * (2 << 20)}).encode()),
    text("json-empty", "model", b"{}"),
    chat("number-huge", "temperature", temperature=1e308),
    chat("number-as-text", "max_tokens", max_tokens="9"),
    chat("number-beyond", "seed", seed=1 << 80),
    chat("number-true", "max_tokens", max_tokens=True),
    chat("model-of-another", "model", "model_not_found", 404, model="gpt-4o"),
    chat("model-no-text", "model", model=["test-model"]),
    chat("messages-empty", "messages", messages=[]),
    chat("message-no-object", "messages[0]", messages=["hello"]),
    chat("role-unknown", "messages[0].role", messages=[{"role": "x", "content": "y"}]),
    chat("surrogate", "messages[0].content[0].text", messages=asking(text="\ud800")),
    chat("text-missing", "messages[0].content[0].text", messages=asking(text=None)),
    chat("parameter-unknown", "temprature", temprature=1),
    text("parameter-surrogate", "?", HALF),
    chat("stop-surrogate", "stop", stop=["\udfff"]),
    chat("base64-odd", IMAGE, "bad_image", 422, messages=asking("data:image/png;base64,AAA")),
    chat("base64-signs", IMAGE, "bad_image", 422, messages=asking("data:image/png;base64,A*==")),
    chat("base64-spaces", IMAGE, "bad_image", 422, messages=asking("data:image/png;base64,A A=")),
    chat("base64-none", IMAGE, messages=asking("data:image/png,rawtext")),
    chat("type-unknown", IMAGE, messages=asking("data:text/html;base64,AAAA")),
    chat("fetched", IMAGE, messages=asking("http://127.0.0.1:22/")),
    chat("file", IMAGE, messages=asking("file:///etc/passwd")),
    chat("reference", IMAGE, "image_not_found", 404, messages=asking(NOBODY)),
    chat("reference-odd", IMAGE, "image_not_found", 404, messages=asking("gpuwarden://../x")),
    chat("png-bomb", IMAGE, "too_many_pixels", 422, messages=asking(url(png_bomb()))),
    chat(
        "nine-images",
        "messages[0].content[9].image_url.url",
        messages=asking(*[url(ct_image())] * 9),
    ),
)

WRONG = (*IMAGES, *FORMS, *TYPES, *CHATS)
