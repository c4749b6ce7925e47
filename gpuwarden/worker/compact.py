# SPDX-License-Identifier: Apache-2.0
"""JSON without spaces, for frames and answers.

``json.dumps`` makes a new encoder for each value, and ``json.loads`` looks for spaces around it:
for the few hundred bytes of a frame that is most of what they cost. The encoder that ``json``
itself uses is made once here, where this Python has it in C.

The gateway and the worker both import this module: standard library only, Python 3.9 and newer.
"""

import json
import json.encoder
from typing import Any, Callable, Optional, Tuple

Encoder = Callable[[Any], str]


def _refuse(value: Any) -> None:
    raise TypeError(f"{type(value).__name__} is no JSON")


def encoder_of(make: Optional[Callable[..., Any]]) -> Encoder:
    """An encoder: ASCII alone, no NaN; raises TypeError, ValueError, RecursionError.

    :param make: ``json.encoder.c_make_encoder``, where there is one.
    """
    if make is None:
        return json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
    quote = json.encoder.encode_basestring_ascii
    encode = make(None, _refuse, quote, None, ":", ",", False, False, False)

    def compact(value: Any) -> str:
        return quote(value) if isinstance(value, str) else "".join(encode(value, 0))

    return compact


compact_json = encoder_of(getattr(json.encoder, "c_make_encoder", None))
_scan: Callable[[str, int], Tuple[Any, int]] = vars(json.JSONDecoder())["scan_once"]


def parse_json(text: str) -> Any:
    """The value of a JSON text that has nothing around it. Raises ValueError."""
    try:
        value, end = _scan(text, 0)
    except StopIteration as error:
        raise ValueError("there is no value") from error
    if end != len(text):
        raise ValueError("there is more than one value")
    return value
