# SPDX-License-Identifier: Apache-2.0
"""OpenAI's chat form, from a request of ours to its body and from its events to a text. Pure."""

import base64
import json
from typing import Any, Dict, List, Optional

from gpuwarden.worker.engine import (
    BadImageError,
    BadRequestError,
    Image,
    Request,
    RequestError,
)

PNG_START = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8\xff"
EVENT_LIMIT_BYTES = 1 << 20
TEXT_LIMIT_BYTES = 16 << 20  # of a whole answer: longer than any context
COUNTS = ("prompt_tokens", "completion_tokens")
BROKEN_OFF = "the model's server broke its answer off"


class OverloadedError(RequestError):
    """The server takes no more requests at the moment."""

    kind = "no_room"


def body_of(request: Request, model: str, further: Dict[str, Any]) -> bytes:
    """The JSON that the server gets. Raises BadImageError, BadRequestError."""
    document = {
        **further,
        "model": model,
        "messages": _messages(request),
        "stream": True,
        "stream_options": {"include_usage": True},
        **request.parameters,
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _messages(request: Request) -> List[Dict[str, Any]]:
    if not request.messages:
        return [{"role": "user", "content": _asked(request)}]
    return [
        {"role": message["role"], "content": _content(message["content"], request)}
        for message in request.messages
    ]


def _asked(request: Request) -> Any:
    """The content of a question with at most one image, which is no chat."""
    parts: List[Dict[str, Any]] = []
    if request.question:
        parts.append({"type": "text", "text": request.question})
    if len(request.body):
        parts.append(_image_part(Image(request.media_type, request.body), "image"))
    if not parts:
        raise BadRequestError("there is neither a question nor an image", "question")
    return parts if len(request.body) else request.question


def _content(parts: List[Dict[str, Any]], request: Request) -> Any:
    if [part["type"] for part in parts] == ["text"]:
        return parts[0]["text"]  # chat templates of models without eyes know texts alone
    return [
        part if part["type"] == "text" else _image_part(request.images[part["image"]], "messages")
        for part in parts
    ]


def _image_part(image: Image, place: str) -> Dict[str, Any]:
    data = base64.b64encode(image.data).decode("ascii")
    url = f"data:{_media_type(image, place)};base64,{data}"
    return {"type": "image_url", "image_url": {"url": url}}


def _media_type(image: Image, place: str) -> str:
    """What an image is by its own first bytes, whatever its sender calls it."""
    start = bytes(image.data[: len(PNG_START)])
    if start == PNG_START:
        return "image/png"
    if start.startswith(JPEG_START):
        return "image/jpeg"
    raise BadImageError(
        "this model takes PNG and JPEG; send a rendered picture in place of a DICOM object", place
    )


class Events:
    """The data of server-sent events, out of bytes that are cut anywhere."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: List[bytes] = []

    def feed(self, chunk: bytes) -> List[bytes]:
        """The events that have come to their end. Raises RequestError for one without an end."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > EVENT_LIMIT_BYTES:
            raise RequestError("the model's server sent an event that is too long")
        events = []
        for line in (line.rstrip(b"\r") for line in lines):
            if line.startswith(b"data:"):
                self._data.append(line[len(b"data:") :].strip())
            elif not line and self._data:
                events.append(b"\n".join(self._data))
                self._data = []
        return events


class Completion:
    """One answer as it comes. Every method raises RequestError for what is no answer."""

    def __init__(self) -> None:
        self._texts: List[str] = []
        self._usage: Dict[str, int] = {}
        self._finish_reason = ""
        self.has_ended = False

    def take(self, event: bytes) -> str:
        """The piece of text in an event of a stream."""
        if event == b"[DONE]":
            self.has_ended = True
            return ""
        return self._take(_object(event), "delta")

    def take_whole(self, body: bytes) -> str:
        """The text of an answer that didn't come as a stream."""
        self.has_ended = True
        return self._take(_object(body), "message")

    def result(self) -> Dict[str, Any]:
        """The answer, when all of it is there."""
        if not (self.has_ended or self._finish_reason):
            raise RequestError(BROKEN_OFF)
        if self._finish_reason in ("abort", "error"):
            raise RequestError("the model's server gave the request up")
        reason = "length" if self._finish_reason == "length" else "stop"
        usage = {"usage": self._usage} if self._usage else {}
        return {"text": "".join(self._texts), "finish_reason": reason, **usage}

    def _take(self, document: Dict[str, Any], holder: str) -> str:
        if document.get("error") is not None:
            raise error_of(500, document)
        usage = document.get("usage")
        if isinstance(usage, dict):
            self._usage = {key: usage[key] for key in COUNTS if isinstance(usage.get(key), int)}
        choices = document.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else {}
        if not isinstance(choice, dict):
            raise RequestError("the model's server sent no answer of OpenAI's form")
        self._finish_reason = choice.get("finish_reason") or self._finish_reason
        text = (choice.get(holder) or {}).get("content")
        if not isinstance(text, str):
            return ""  # the role, a thought, the usage
        self._texts.append(text)
        return text


def _object(text: bytes) -> Dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise RequestError("the model's server sent what is no JSON") from error
    if not isinstance(document, dict):
        raise RequestError("the model's server sent no answer of OpenAI's form")
    return document


def error_of(status: int, document: Optional[Dict[str, Any]]) -> RequestError:
    """What its caller is told of a status that is no success, with the server's own words."""
    said, param = _words_of(document or {})
    if status in (429, 503):
        return OverloadedError(said or "the model's server takes no more requests at the moment")
    if status in (401, 403, 407):  # not the caller's fault: the worker asks with its own headers
        return RequestError(f"the model's server refuses this worker ({status}): see api_key_file")
    if 400 <= status < 500:
        return BadRequestError(said or f"the model's server refused the request ({status})", param)
    return RequestError(f"the model's server failed ({status})" + (f": {said}" if said else ""))


def _words_of(document: Dict[str, Any]) -> Any:
    """Message and field at fault, in OpenAI's form, vLLM's former one, FastAPI's."""
    error = document.get("error")
    inner = error if isinstance(error, dict) else document
    said = error if isinstance(error, str) else inner.get("message") or inner.get("detail")
    param = inner.get("param")
    return (
        said if isinstance(said, str) else json.dumps(said) if said else "",
        param if isinstance(param, str) else None,
    )
