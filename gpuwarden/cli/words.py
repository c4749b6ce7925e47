# SPDX-License-Identifier: Apache-2.0
"""Words of a command line that have to be numbers."""

LARGEST_NUMBER = 2**32 - 1  # D-Bus's u


def whole_number(word: str, what: str, smallest: int = 0) -> int:
    """The number that ``word`` is.

    :param what: how the error begins, as in "a worker is named by its number".
    :raises ValueError: it is none, or out of range.
    """
    if not (word.isascii() and word.isdigit()) or not smallest <= int(word) <= LARGEST_NUMBER:
        raise ValueError(f"{what}, {smallest} or more; found {word!r}")
    return int(word)
