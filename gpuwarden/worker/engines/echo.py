# SPDX-License-Identifier: Apache-2.0
"""The engine that answers with what it was asked: to try the service without a model.

A chat's answer is also told word by word, as a language model's is.

Options: ``delay_seconds`` (a batch's time on the card), ``allocate_bytes_per_request`` (kept, to
meet the worker's memory limit), ``fail_load`` (true: load() raises), ``word_seconds`` (the time
between two words of a chat's answer), ``return_body`` (true: an
image that is sent by itself comes back as a file, with the usual answer beside it).
"""

import hashlib
import pickle
import re
import time
from typing import Any, Dict, List, Union

from gpuwarden.worker.engine import Context, Engine, Output, Request


class Echo(Engine):
    """Answers question, media type and parameters, with length and SHA-256 of the body."""

    batch_mixed = True

    def load(self, context: Context) -> None:
        """Nothing to load. Raises RuntimeError where the option ``fail_load`` asks for it."""
        if context.options.get("fail_load"):
            raise RuntimeError("option fail_load is set: remove it from [workers.options]")
        self._delay_seconds = float(context.options.get("delay_seconds", 0))
        self._word_seconds = float(context.options.get("word_seconds", 0))
        self._allocate_bytes = int(context.options.get("allocate_bytes_per_request", 0))
        self._kept: List[bytes] = []

    def preprocess(self, request: Request) -> Dict[str, Any]:
        """What the answer will hold."""
        return {
            "question": request.question,
            "media_type": request.media_type,
            "parameters": request.parameters,
            "body_bytes": len(request.body),
            "body_sha256": hashlib.sha256(request.body).hexdigest(),
            **({"chat": _chat(request)} if request.messages else {}),
            **({"body": pickle.PickleBuffer(request.body)} if self._is_returned(request) else {}),
        }

    def predict(self, batch: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
        """The same again, after the configured delay."""
        for _ in batch:
            if self._allocate_bytes:
                self._kept.append(b"\x01" * self._allocate_bytes)
        time.sleep(self._delay_seconds)
        return [
            {**item, **self._answer(index, item.pop("chat"))} if "chat" in item else item
            for index, item in enumerate(batch)
        ]

    def postprocess(self, result: Dict[str, Any]) -> Union[Dict[str, Any], Output]:
        """The answer, and the body where the option ``return_body`` asks for it."""
        if "body" not in result:
            return result
        data = result.pop("body")
        return Output(result["media_type"], data, result)

    def _is_returned(self, request: Request) -> bool:
        is_image = request.media_type.startswith("image/") and not request.messages
        return is_image and bool(self.context.options.get("return_body"))

    def _answer(self, index: int, chat: Dict[str, Any]) -> Dict[str, Any]:
        """The answer to a chat: what was said last, word by word, and the images' digests."""
        text = " ".join([chat["question"], *chat["images"]])
        words = [word for word in re.split(r"(?<= )", text) if word]
        limit = chat["limit"] or len(words)
        for word in words[:limit]:
            if not self.is_awaited(index):
                break
            self.tell(index, word)
            time.sleep(self._word_seconds)
        return {
            "text": "".join(words[:limit]),
            "finish_reason": "stop" if len(words) <= limit else "length",
            "usage": {
                "prompt_tokens": chat["words"],
                "completion_tokens": len(words[:limit]),
            },
        }


def _chat(request: Request) -> Dict[str, Any]:
    """What the answer to a chat is made of."""
    texts = [
        part["text"]
        for message in request.messages
        for part in message["content"]
        if part["type"] == "text"
    ]
    asked = request.parameters
    return {
        "question": request.question or "",
        "images": [hashlib.sha256(image.data).hexdigest() for image in request.images],
        "limit": asked.get("max_completion_tokens", asked.get("max_tokens")),
        "words": sum(len(text.split()) for text in texts),
    }
