# SPDX-License-Identifier: Apache-2.0
"""What an engine answers, checked, in the form in which it travels.

Most answers are a small JSON object in the RESULT's meta. What is larger, or no JSON, is a
``Large``: up to 64 KiB of it lie in the RESULT's body, more in a buffer that the gateway lends.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Dict, Union

from gpuwarden.worker.compact import compact_json
from gpuwarden.worker.engine import Output
from gpuwarden.worker.faults import Failure
from gpuwarden.worker.frames import META_LIMIT_BYTES
from gpuwarden.worker.nesting import TOO_DEEP, nests_too_deep

ANSWER_LIMIT_BYTES = META_LIMIT_BYTES - 1024  # the RESULT's other fields take the rest
BESIDE_LIMIT_BYTES = 4096  # of JSON beside a file: it is an HTTP header of the answer
JSON_TYPE = "application/json"
MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,40}/[a-z0-9][a-z0-9!#$&^_.+-]{0,56}")
BESIDE_A_TEXT = ("finish_reason", "usage", "gpuwarden")
WHOLE, TEXT, FILE = "answer", "text", "file"  # what a Large's data is; see Large


class Small(Dict[str, Any]):
    """An answer that a frame holds, with its JSON: that isn't made again on its way."""

    __slots__ = ("json",)

    def __init__(self, answer: Dict[str, Any], json: bytes) -> None:
        super().__init__(answer)
        self.json = json


@dataclass(frozen=True)
class Large:
    """An answer with more than a RESULT's meta holds.

    :ivar part: what ``data`` is: ``answer`` the whole answer as JSON, ``text`` the text of a chat's
        answer as a JSON string, ``file`` an engine's Output.
    :ivar answer: the JSON object beside a file or a text; of a whole answer the object itself.
    """

    part: str
    media_type: str
    data: memoryview
    answer: Dict[str, Any]

    def content(self) -> Dict[str, Any]:
        """The ``content`` of its RESULT."""
        return {"part": self.part, "media_type": self.media_type, "length": len(self.data)}


Answer = Union[Dict[str, Any], Failure, Large]


def checked_answer(answer: Any) -> Answer:
    """The answer, if it is a JSON object or an Output; else the failure."""
    if not isinstance(answer, dict):
        if isinstance(answer, Output):
            return _checked_output(answer)
        kind = type(answer).__name__
        text = f"postprocess() must return a dict or an Output, it gave a {kind}"
        return Failure("engine_error", text)
    try:
        encoded = _as_json(answer)
    except (TypeError, ValueError, RecursionError) as error:
        text = f"postprocess() must return what JSON can hold: {type(error).__name__}"
        return Failure("engine_error", text)
    if nests_too_deep(encoded):
        return Failure("engine_error", f"postprocess() gave an answer that {TOO_DEEP}")
    if len(encoded) > ANSWER_LIMIT_BYTES:
        return Large(WHOLE, JSON_TYPE, memoryview(encoded), answer)
    return Small(answer, encoded)


def for_chat(answer: Answer, *, told: bool) -> Answer:
    """The same as the answer to a chat: large text is set apart from what goes with it.

    :param told: its caller has had the text in pieces.
    """
    if not isinstance(answer, Large):
        return answer
    if answer.part == FILE:
        text = f"this model answers with {answer.media_type}, which no chat carries: use /predict"
        return Failure("engine_error", text)
    whole = answer.answer
    beside: Dict[str, Any] = {key: whole[key] for key in BESIDE_A_TEXT if key in whole}
    if len(_as_json(beside)) > BESIDE_LIMIT_BYTES:
        beside = {}
    if told:
        return beside
    return Large(TEXT, JSON_TYPE, memoryview(_as_json(text_of(whole))), beside)


def text_of(answer: Dict[str, Any]) -> str:
    """The text of an engine's answer: its ``text``, or all of it as JSON."""
    text = answer.get("text")
    if isinstance(text, str):
        return text
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":"))


def _checked_output(output: Output) -> Answer:
    if not isinstance(output.media_type, str) or not MEDIA_TYPE.fullmatch(output.media_type):
        text = 'an Output\'s media_type is like "image/png": lower case, without parameters'
        return Failure("engine_error", text)
    try:
        view = memoryview(output.data)
        data = view.cast("B") if view.nbytes else memoryview(b"")  # no empty array can be cast
    except (TypeError, ValueError) as error:
        text = f"an Output's data is one contiguous buffer (bytes, a numpy array): {error}"
        return Failure("engine_error", text)
    beside = checked_answer(output.answer)
    if isinstance(beside, Failure):
        return beside
    if isinstance(beside, Large) or len(_as_json(beside)) > BESIDE_LIMIT_BYTES:
        text = f"the answer beside an Output has {BESIDE_LIMIT_BYTES} bytes of JSON at most"
        return Failure("result_too_large", text)
    return Large(FILE, output.media_type, data, beside)


def _as_json(value: Any) -> bytes:
    return compact_json(value).encode("ascii")
