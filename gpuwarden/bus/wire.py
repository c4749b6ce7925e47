# SPDX-License-Identifier: Apache-2.0
"""Values to and from the wire: total conversion outwards, parsing of one frame inwards."""

import io
import math
from typing import Any

from gpuwarden.bus.framing import Frame
from gpuwarden.bus.library import (
    Message,
    SignatureTree,
    SignatureType,
    Unmarshaller,
    Variant,
)

_INTEGER_RANGES = {
    "y": (0, 2**8 - 1),
    "n": (-(2**15), 2**15 - 1),
    "q": (0, 2**16 - 1),
    "i": (-(2**31), 2**31 - 1),
    "u": (0, 2**32 - 1),
    "x": (-(2**63), 2**63 - 1),
    "t": (0, 2**64 - 1),
}
# What stands for "unknown" (None): NUMA nodes are the only signed numbers of the contract, and the
# kernel's own word for an unknown node is -1.
_UNKNOWN_SIGNED = -1


def clean_text(text: str) -> str:
    """``text`` as the bus can carry it: no NUL (the daemon would cut us off), no surrogates."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def to_wire(signature: str, value: object) -> Any:
    """``value`` in the shape of ``signature``, a single complete type; never fails on range.

    Unknown (None) becomes NaN, 0, -1 for signed integers, "" or empty; integers are clamped.
    """
    return _shape(_type(signature), value)


def to_variant(signature: str, value: object) -> Variant:
    """``value`` as a variant of ``signature``."""
    return Variant(signature, to_wire(signature, value))


def plain(value: object) -> Any:
    """``value`` as received, with every variant replaced by what it holds."""
    if isinstance(value, Variant):
        return plain(value.value)
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def clean_body(body: list[Any]) -> list[Any]:
    """``body`` with every text in it, at any depth, such as the bus can carry."""
    return [_clean(item) for item in body]


def parse_header(frame: Frame) -> Message:
    """The message of ``frame`` with its body left out. Raises ValueError, TypeError or KeyError."""
    unmarshaller = Unmarshaller(io.BytesIO(frame.header()))
    message: Message | None = unmarshaller.unmarshall()
    if message is None:
        raise ValueError("the header ends early")
    return message


def parse_body(frame: Frame, message: Message) -> list[Any]:
    """The body of ``frame``, whose header is ``message``. Raises as :func:`parse_header`."""
    if frame.body_offset == len(frame.data):
        return []
    unmarshaller = Unmarshaller(io.BytesIO())
    unmarshaller.buf = bytearray(frame.data)
    unmarshaller.offset = frame.body_offset
    unmarshaller.endian = frame.data[0]
    return [unmarshaller.read_argument(type_) for type_ in message.signature_tree.types]


def _type(signature: str) -> SignatureType:
    single: SignatureType
    (single,) = SignatureTree._get(signature).types
    return single


def _shape(type_: SignatureType, value: object) -> Any:
    token = type_.token
    if token in _INTEGER_RANGES:
        return _integer(token, value)
    if token == "d":
        return float(value) if isinstance(value, int | float) else math.nan
    if token == "b":
        return bool(value)
    if token in "sog":
        return "" if value is None else clean_text(str(value))
    return _shape_container(type_, value)


def _shape_container(type_: SignatureType, value: object) -> Any:
    if type_.token == "a":
        return _array(type_.children[0], value)
    if type_.token == "(":
        return [_shape(*pair) for pair in zip(type_.children, _items(value), strict=True)]
    if type_.token == "v" and isinstance(value, Variant):
        return _clean(value)
    raise TypeError(f"no value of type {type_.signature} can be made of {type(value).__name__}")


def _integer(token: str, value: object) -> int:
    low, high = _INTEGER_RANGES[token]
    if not isinstance(value, int):
        return _UNKNOWN_SIGNED if low < 0 else 0
    return min(max(int(value), low), high)


def _array(child: SignatureType, value: object) -> Any:
    if child.token == "{":
        key, item = child.children
        entries = value.items() if isinstance(value, dict) else ()
        return {_shape(key, each): _shape(item, held) for each, held in entries}
    return [_shape(child, item) for item in _items(value)]


def _items(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else []


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, Variant):
        return Variant(value.signature, _clean(value.value))
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {_clean(key): _clean(item) for key, item in value.items()}
    return value
