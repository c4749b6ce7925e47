# SPDX-License-Identifier: Apache-2.0
"""OpenAI's answers: one completion, or the events of a stream."""

import json
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from gpuwarden.gateway.errors import ApiError
from gpuwarden.worker.outputs import text_of

FINISHES = ("stop", "length")
DONE = b"data: [DONE]\n\n"


def finish_of(answer: dict[str, Any]) -> str:
    """Why the engine ended the text."""
    reason = answer.get("finish_reason")
    return reason if reason in FINISHES else "stop"


def usage_of(answer: dict[str, Any]) -> dict[str, int]:
    """Tokens as the engine counted them; 0 where it doesn't."""
    given = answer.get("usage")
    counts = {}
    for name in ("prompt_tokens", "completion_tokens"):
        count = given.get(name) if isinstance(given, dict) else None
        counts[name] = count if isinstance(count, int) and count >= 0 else 0
    return {**counts, "total_tokens": sum(counts.values())}


def made_by(answer: dict[str, Any]) -> dict[str, Any]:
    """What the engine says of how it made the answer, if it does."""
    said = answer.get("gpuwarden")
    return {"gpuwarden": said} if isinstance(said, dict) else {}


@dataclass(frozen=True)
class Completion:
    """One answer to a chat, under its own id."""

    model: str
    include_usage: bool = False
    identifier: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(16)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The answer in one piece."""
        message = {"role": "assistant", "content": text_of(answer), "refusal": None}
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": finish_of(answer),
        }
        head = self._head("chat.completion")
        return {**head, "choices": [choice], "usage": usage_of(answer), **made_by(answer)}

    def begins(self) -> bytes:
        """The first event: who speaks."""
        return self._event({"role": "assistant", "content": ""}, None)

    def piece(self, text: str) -> bytes:
        """A piece of the text."""
        return self._event({"content": text}, None)

    def ends(self, answer: dict[str, Any]) -> bytes:
        """The last events."""
        events = self._event({}, finish_of(answer), **made_by(answer))
        if self.include_usage:
            head = self._head("chat.completion.chunk")
            events += event({**head, "choices": [], "usage": usage_of(answer)})
        return events + DONE

    def breaks_off(self, error: ApiError) -> bytes:
        """The last event of an answer that can't be finished: the error, and nothing more comes."""
        choice = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "error"}
        head = self._head("chat.completion.chunk")
        return event({**error.content(), **head, "choices": [choice]}) + DONE

    def _event(self, delta: dict[str, Any], finish: str | None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        content = {**self._head("chat.completion.chunk"), "choices": [choice], **more}
        return event({**content, "usage": None} if self.include_usage else content)

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.identifier,
            "object": kind,
            "created": self.created,
            "model": self.model,
        }


def event(content: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return (
        b"data: " + json.dumps(content, separators=(",", ":"), allow_nan=False).encode() + b"\n\n"
    )
