# SPDX-License-Identifier: Apache-2.0
"""The parameters of OpenAI's chat form: what is taken, in which bounds, and what is refused.

What would change an answer and can't be done here is refused, never ignored: an answer must not be
another one than its reader thinks. What can't change an answer is taken and dropped.
"""

from typing import Any, Callable, Dict, NoReturn, Tuple

from gpuwarden.worker.engine import BadRequestError

FAR = 1 << 31

NUMBERS: Dict[str, Tuple[float, float]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "min_p": (0, 1),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "repetition_penalty": (0, 10),
}
WHOLE_NUMBERS: Dict[str, Tuple[int, int]] = {
    "max_tokens": (1, FAR),
    "max_completion_tokens": (1, FAR),
    "top_k": (-1, FAR),
    "seed": (-(1 << 63), (1 << 63) - 1),
    "min_tokens": (0, FAR),
}
FLAGS = ("ignore_eos",)
STOPS = 4
STOP_CHARACTERS = 200

# Without effect on an answer.
DROPPED = (
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "parallel_tool_calls",
)
# Taken where they ask for what is done anyway.
HARMLESS: Dict[str, Callable[[Any], bool]] = {
    "n": lambda value: value == 1 and not isinstance(value, bool),
    "logprobs": lambda value: value is False,
    "top_logprobs": lambda value: value == 0 and not isinstance(value, bool),
    "logit_bias": lambda value: value == {},
    "tools": lambda value: value == [],
    "functions": lambda value: value == [],
    "tool_choice": lambda value: value in ("none", "auto"),
    "function_call": lambda value: value in ("none", "auto"),
    "response_format": lambda value: value == {"type": "text"},
    "modalities": lambda value: value == ["text"],
}
OWN = ("model", "messages", "stream", "stream_options", "stop")
KNOWN = (*OWN, *NUMBERS, *WHOLE_NUMBERS, *FLAGS, *DROPPED, *HARMLESS)


def checked_parameters(document: Dict[str, Any]) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """What goes to the engine, and the terms of the answer. Raises BadRequestError."""
    given = {name: value for name, value in document.items() if value is not None}
    parameters: Dict[str, Any] = {}
    for name, value in given.items():
        if name not in KNOWN:
            _refuse(name[:64], "there is no such parameter")
        if name in NUMBERS or name in WHOLE_NUMBERS:
            parameters[name] = _number(name, value)
        elif name in FLAGS:
            if not isinstance(value, bool):
                _refuse(name, "true or false")
            parameters[name] = value
        elif name in HARMLESS and not HARMLESS[name](value):
            _refuse(name, "this node can't do that: leave the parameter out")
    if "stop" in given:
        parameters["stop"] = _stops(given["stop"])
    return parameters, _terms(given)


def check_unicode(text: str, place: str) -> None:
    """Refuse halves of surrogate pairs, which no encoder takes. Raises BadRequestError."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        _refuse(place, "the text is not Unicode: it holds half of a surrogate pair")


def _number(name: str, value: Any) -> Any:
    whole = name in WHOLE_NUMBERS
    low, high = WHOLE_NUMBERS[name] if whole else NUMBERS[name]
    kinds = (int,) if whole else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool) or not low <= value <= high:
        _refuse(name, f"a {'whole ' if whole else ''}number from {low} to {high}")
    return value


def _stops(value: Any) -> Any:
    stops = [value] if isinstance(value, str) else value
    texts = isinstance(stops, list) and all(isinstance(one, str) for one in stops)
    if not texts or len(stops) > STOPS or any(len(one) > STOP_CHARACTERS for one in stops):
        _refuse("stop", f"a text or up to {STOPS}, of {STOP_CHARACTERS} characters at most")
    for one in stops:
        check_unicode(one, "stop")
    return stops


def _terms(given: Dict[str, Any]) -> Dict[str, Any]:
    stream, options = given.get("stream", False), given.get("stream_options")
    if not isinstance(stream, bool):
        _refuse("stream", "true or false")
    if options is None:
        return {"stream": stream, "include_usage": False}
    if not stream:
        _refuse("stream_options", "only together with stream")
    if not isinstance(options, dict):
        _refuse("stream_options", 'an object: {"include_usage": true}')
    for name, value in options.items():
        if name not in ("include_usage", "include_obfuscation"):
            _refuse(f"stream_options.{name[:64]}", "there is no such option")
        if not isinstance(value, bool):
            _refuse(f"stream_options.{name}", "true or false")
    return {"stream": True, "include_usage": options.get("include_usage", False)}


def _refuse(place: str, message: str) -> NoReturn:
    raise BadRequestError(message, place)
