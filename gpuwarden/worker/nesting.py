# SPDX-License-Identifier: Apache-2.0
"""How deep JSON may be nested: each level is a level of some later reader's recursion, too.

What one function can still read or write, at whatever depth of the stack it was called, the next
one fails on. So the limit is a number, far below Python's own and far above what any answer needs.

The gateway and the worker both import this module: standard library only, Python 3.9 and newer.
"""

import itertools
import re

NESTING_LIMIT = 100
TOO_DEEP = f"is nested more than {NESTING_LIMIT} levels deep"
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)  # one without an end is the rest
_INTO_STEPS = bytes.maketrans(b"[]{}", bytes((1, 0, 1, 0)))
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = (-1, 1)


def nests_too_deep(text: bytes, limit: int = NESTING_LIMIT) -> bool:
    """Whether a JSON text has more levels than ``limit``."""
    if text.count(b"[") + text.count(b"{") <= limit:
        return False
    brackets = _STRING.sub(b"", text).translate(_INTO_STEPS, _NO_BRACKETS)
    return max(itertools.accumulate(map(_STEPS.__getitem__, brackets)), default=0) > limit
