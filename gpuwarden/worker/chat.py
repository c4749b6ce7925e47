# SPDX-License-Identifier: Apache-2.0
"""OpenAI's chat form in a CPU process: what a request asks, its parameters, its images.

The gateway hands the body over unparsed. Here its images are sliced out of the mapping, the rest is
parsed and checked, and whatever is wrong is told with the place where it stands.
"""

import binascii
import json
from typing import Any, Dict, List, Mapping, NoReturn, Optional, Tuple

from gpuwarden.worker.chat_parameters import check_unicode, checked_parameters
from gpuwarden.worker.cuts import Cuts, cut_images
from gpuwarden.worker.engine import MAX_PIXELS, BadImageError, BadRequestError, Image, Request
from gpuwarden.worker.pixels import check_pixels

TEXT_LIMIT_BYTES = 1 << 20  # of a request without its images; a model's context is shorter
IMAGES_LIMIT = 8
DIGITS_LIMIT = 400  # more than any float has before its point
NO_JSON = "the body is no JSON object in UTF-8"
REFERENCE = "gpuwarden://"
ROLES = ("system", "developer", "user", "assistant")
MEDIA_TYPES = ("application/dicom", "image/png", "image/jpeg", "application/octet-stream")
DETAILS = (None, "auto", "low", "high")

Stored = Mapping[str, Image]  # images sent before, by their id


class ModelNotFoundError(BadRequestError):
    """The node runs another model."""

    kind = "model_not_found"


class ImageNotFoundError(BadRequestError):
    """A reference leads to no image (any more)."""

    kind = "image_not_found"


class Conversation:
    """The messages of one request, as they are read; images are numbered in their order."""

    def __init__(self, cuts: Cuts, stored: Stored, max_pixels: int) -> None:
        self.cuts = cuts
        self.stored = stored
        self.max_pixels = max_pixels
        self.messages: List[Dict[str, Any]] = []
        self.images: List[Image] = []
        self.question = ""

    def add(self, message: Any, place: str) -> None:
        """Read one message. Raises BadRequestError."""
        if not isinstance(message, dict):
            _refuse(place, "a message is an object with role and content")
        role, content = message.get("role"), message.get("content")
        if role not in ROLES:
            _refuse(f"{place}.role", f"the role is one of {', '.join(ROLES)}")
        if isinstance(content, str):
            parts = [self._text(content, f"{place}.content")]
        elif isinstance(content, list) and content:
            parts = [self._part(one, f"{place}.content[{i}]") for i, one in enumerate(content)]
        else:
            _refuse(f"{place}.content", "content is a text or a list of parts")
        self.messages.append({"role": role, "content": parts})
        if role == "user":
            texts = [part["text"] for part in parts if part["type"] == "text"]
            self.question = "\n".join(texts)

    def _part(self, part: Any, place: str) -> Dict[str, Any]:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text":
            return self._text(part.get("text"), f"{place}.text")
        if kind == "image_url":
            image = part.get("image_url")
            if not isinstance(image, dict) or not isinstance(image.get("url"), str):
                _refuse(f"{place}.image_url", 'image_url is an object: {"url": "..."}')
            if image.get("detail") not in DETAILS:
                _refuse(f"{place}.image_url.detail", "detail is auto, low or high")
            return self._image(image["url"], f"{place}.image_url.url")
        raise BadRequestError("a part is of type text or image_url", f"{place}.type")

    def _text(self, text: Any, place: str) -> Dict[str, Any]:
        if not isinstance(text, str):
            _refuse(place, "the text is missing or no string")
        try:
            text = self.cuts.restored(text)
        except ValueError:
            _refuse("body", NO_JSON)
        check_unicode(text, place)
        return {"type": "text", "text": text}

    def _image(self, url: str, place: str) -> Dict[str, Any]:
        if len(self.images) == IMAGES_LIMIT:
            _refuse(place, f"a request may have {IMAGES_LIMIT} images")
        cut = self.cuts.get(url)
        if cut is not None:
            image = decoded(*cut, place)
        elif url.startswith("data:"):
            image = _uncut(url, place)
        elif url.startswith(REFERENCE):
            found = self.stored.get(url[len(REFERENCE) :])
            if found is None:
                raise ImageNotFoundError(
                    "there is no such image: its time is over, or it was never sent here;"
                    " send it again to POST /v1/images",
                    place,
                )
            image = found
        else:
            _refuse(place, "an image is a data URL (data:image/png;base64,...) or gpuwarden://ID")
        check_pixels(image.data, self.max_pixels, place)
        self.images.append(image)
        return {"type": "image", "image": len(self.images) - 1}


def read_chat(
    body: memoryview, model: str, stored: Stored, max_pixels: int = MAX_PIXELS
) -> Tuple[Request, Dict[str, Any]]:
    """The request for the engine, and its sender's terms: ``stream`` and ``include_usage``.

    Raises RequestError with ``param`` for what the caller should correct.
    """
    text, cuts = cut_images(body)
    if len(text) > TEXT_LIMIT_BYTES:
        _refuse("body", f"without its images a request may have {TEXT_LIMIT_BYTES} bytes")
    document = parsed(text)
    wanted = document.get("model")
    if not isinstance(wanted, str) or not wanted:
        _refuse("model", "say which model: GET /v1/models lists them")
    if wanted != model:
        raise ModelNotFoundError("there is no such model here: GET /v1/models lists them", "model")
    messages = document.get("messages")
    if not isinstance(messages, list) or not messages:
        _refuse("messages", "messages is a list of at least one message")
    parameters, terms = checked_parameters(document)
    conversation = Conversation(cuts, stored, max_pixels)
    for index, message in enumerate(messages):
        conversation.add(message, f"messages[{index}]")
    newest = conversation.images[-1] if conversation.images else Image("", memoryview(b""))
    request = Request(
        conversation.question,
        newest.media_type,
        parameters,
        newest.data,
        tuple(conversation.messages),
        tuple(conversation.images),
    )
    return request, terms


def parsed(text: bytes) -> Dict[str, Any]:
    """The JSON object in a text. Raises BadRequestError."""
    try:
        document = json.loads(
            text.decode("utf-8"), parse_constant=_no_constant, parse_int=_whole_number
        )
    except RecursionError:
        _refuse("body", "the body is nested too deeply")
    except ValueError:  # of broken UTF-8, too; its own text would quote the request
        _refuse("body", NO_JSON)
    if not isinstance(document, dict):
        _refuse("body", "the body is no JSON object")
    return document


def decoded(media_type: str, payload: Any, place: str) -> Image:
    """The image in a data URL's base64. Raises BadRequestError, BadImageError."""
    media_type = "image/jpeg" if media_type == "image/jpg" else media_type
    if media_type not in MEDIA_TYPES:
        _refuse(place, f"the image's media type is none of {', '.join(MEDIA_TYPES)}")
    if b"\\" in bytes(payload[:256]):  # a sender that escapes slashes does so from the start
        payload = bytes(payload).replace(b"\\/", b"/")
    try:
        data = binascii.a2b_base64(payload)
    except binascii.Error:
        data = b""
    padding = bytes(payload[-2:]).count(b"=")
    if not data or len(data) != len(payload) * 3 // 4 - padding:
        raise BadImageError("the data URL holds no base64 of an image", place)
    return Image(media_type, memoryview(data))


def _uncut(url: str, place: str) -> Image:
    head, mark, payload = url[len("data:") :].partition(";base64,")
    if not mark:
        _refuse(place, "a data URL must be base64: data:image/png;base64,...")
    return decoded(head.lower(), payload.encode("utf-8", "replace"), place)


def _no_constant(name: str) -> Optional[float]:
    raise ValueError(f"{name} is no JSON")


def _whole_number(digits: str) -> int:
    if len(digits) > DIGITS_LIMIT:  # older Pythons take minutes for a million of them
        raise ValueError("a number of too many digits")
    return int(digits)


def _refuse(place: str, message: str) -> NoReturn:
    raise BadRequestError(message, place)
