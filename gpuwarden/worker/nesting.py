# SPDX-License-Identifier: Apache-2.0
"""How deep JSON may be nested: each level is a level of some later reader's recursion, too.

What one function can still read or write, at whatever depth of the stack it was called, the next
one fails on. So the limit is a number, far below Python's own and far above what any answer needs.

The gateway and the worker both import this module: standard library only, Python 3.9 and newer.
"""

import re

NESTING_LIMIT = 100
TOO_DEEP = f"is nested more than {NESTING_LIMIT} levels deep"
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)  # one without an end is the rest
_TO_ROUND = bytes.maketrans(b"[]{}", b"()()")
_NO_BRACKETS = bytes(set(range(256)) - set(b"()"))


def nests_too_deep(text: bytes, limit: int = NESTING_LIMIT) -> bool:
    """Whether a JSON text has more levels than ``limit``."""
    if text.count(b"[") + text.count(b"{") <= limit:
        return False
    rest = _STRING.sub(b"", text).translate(_TO_ROUND).translate(None, _NO_BRACKETS)
    for _ in range(limit):
        if not rest:
            return False
        rest = rest.replace(b"()", b"")  # the innermost level of each branch
    return bool(rest)
