# SPDX-License-Identifier: Apache-2.0
"""Every error a caller can get: one table from type to HTTP status, one exception."""

import json

# type in the answer -> HTTP status
STATUS = {
    "invalid_request": 400,
    "authentication_required": 401,
    "forbidden": 403,
    "not_found": 404,
    "image_not_found": 404,
    "model_not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "job_finished": 409,
    "job_unfinished": 409,
    "length_required": 411,
    "body_too_large": 413,
    "unsupported_media_type": 415,
    "bad_image": 422,
    "too_many_pixels": 422,
    "idempotency_mismatch": 422,
    "image_set_aside": 422,
    "queue_full": 429,
    "rate_limited": 429,
    "headers_too_large": 431,
    "internal_error": 500,
    "engine_error": 500,
    "worker_crashed": 500,
    "result_unreadable": 500,
    "unavailable": 503,
    "jobs_unavailable": 503,
    "too_hot": 503,
    "paused": 503,
    "queue_timeout": 503,
    "model_unavailable": 503,
    "execution_timeout": 504,
    "out_of_memory": 507,
    "insufficient_storage": 507,
}

# what a worker reports -> type in the answer; all else is the engine's failure
WORKER_ERRORS = {
    "bad_image": "bad_image",
    "too_many_pixels": "too_many_pixels",
    "bad_request": "invalid_request",
    "image_not_found": "image_not_found",
    "model_not_found": "model_not_found",
    "engine_error": "engine_error",
    "result_too_large": "engine_error",
    "worker_crashed": "worker_crashed",  # its decoding process, not the worker
    "execution_timeout": "execution_timeout",
    "deadline_exceeded": "execution_timeout",
    "unknown_buffer": "internal_error",
    "out_of_memory": "out_of_memory",  # the card's, by this request alone
    "no_room": "unavailable",  # for a large result
}


# what the caller should correct, unless the worker names it better
AT_FAULT = {
    "bad_image": "image",
    "too_many_pixels": "image",
    "image_not_found": "image",
    "invalid_request": "question",
}


class ApiError(Exception):
    """A request ends with this error.

    :param type: a key of ``STATUS``.
    :param message: for the caller: what was wrong and what would be right. Never logged.
    :param param: the field, header or part at fault.
    :param retry_after_seconds: when trying again makes sense.
    """

    def __init__(
        self,
        type: str,
        message: str,
        *,
        param: str | None = None,
        retry_after_seconds: int | None = None,
        allow: str | None = None,
    ) -> None:
        super().__init__(type)
        self.type = type
        self.status = STATUS[type]
        self.message = message
        self.param = param
        self.retry_after_seconds = retry_after_seconds
        self.allow = allow

    def headers(self) -> dict[str, str]:
        """The HTTP headers that go with it."""
        headers = {}
        if self.retry_after_seconds is not None:
            headers["Retry-After"] = str(self.retry_after_seconds)
        if self.allow is not None:
            headers["Allow"] = self.allow
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return headers

    def content(self) -> dict[str, dict[str, str | None]]:
        """The answer."""
        return {"error": {"type": self.type, "message": self.message, "param": self.param}}

    def body(self) -> bytes:
        """The answer as JSON."""
        return json.dumps(self.content()).encode()


def worker_error(
    type: str, message: str, param: str | None = None, form: str = "predict"
) -> ApiError:
    """The caller's error for what a worker reported.

    :param form: how it was asked, which says what is at fault where the worker doesn't.
    """
    kind = WORKER_ERRORS.get(type, "engine_error")
    if param is None and kind in AT_FAULT:
        param = "messages" if form == "chat" else AT_FAULT[kind]
    wait = 1 if type == "no_room" else None
    return ApiError(kind, message, param=param, retry_after_seconds=wait)
