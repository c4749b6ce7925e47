# SPDX-License-Identifier: Apache-2.0
"""From stored values of up to 16 bits to shades of 8: one table of all values an image can have.

Its ends are two percentiles, read from a count of the values: that takes a seventh of sorting them.
"""

from typing import Any, Optional, Sequence, Tuple

from gpuwarden.worker.engines.transformers.processing import PIXEL_LEVELS

SAMPLES_WANTED = 1 << 20  # of an image for its window: more change it by less than a grey level


def window_table(samples: Any, percentiles: Tuple[float, float], bits: Optional[int] = None) -> Any:
    """The shade of each value, by its bits read without a sign: [256 or 65536] of 8 bits.

    :param samples: [height, width] of 8 or 16 bits each, with or without a sign.
    :param percentiles: what lies below and above them is cut off.
    :param bits: how many of each sample's bits carry the image; None: all.
    """
    import numpy  # noqa: PLC0415 - only this engine needs it

    levels = _levels(samples.dtype, bits)
    counts = _counts(unsigned(samples), len(levels))
    order = levels.argsort(kind="stable")
    low, high = _percentiles(levels[order], counts[order], percentiles)
    if high <= low:  # an image of one value, or nearly so
        low, high = _percentiles(levels[order], counts[order], (0, 100))
    if high <= low:
        return numpy.zeros(len(levels), dtype="u1")
    shades = (levels.astype("f4") - low) * (PIXEL_LEVELS / (high - low))
    return shades.clip(0, PIXEL_LEVELS).round().astype("u1")


def unsigned(samples: Any) -> Any:
    """The same memory, read without a sign."""
    return samples.view(samples.dtype.str.replace("i", "u"))


def _levels(dtype: Any, bits: Optional[int]) -> Any:
    """The value that each pattern of bits stands for; those that carry nothing are left out."""
    import numpy  # noqa: PLC0415 - only this engine needs it

    width = 8 * dtype.itemsize
    patterns = numpy.arange(1 << width, dtype=f"u{dtype.itemsize}")
    levels = patterns.view(dtype.newbyteorder("="))
    if bits is None or bits >= width:
        return levels
    return numpy.right_shift(numpy.left_shift(levels, width - bits), width - bits)


def _counts(samples: Any, values: int) -> Any:
    """How often each value occurs among samples spread evenly over an image."""
    import numpy  # noqa: PLC0415 - only this engine needs it

    step = max(1, int((samples.size / SAMPLES_WANTED) ** 0.5))
    return numpy.bincount(samples[::step, ::step].ravel(), minlength=values)


def _percentiles(values: Any, counts: Any, wanted: Sequence[float]) -> Tuple[float, ...]:
    """As numpy's, of samples that are counted: between two of them in proportion.

    :param values: rising; ``counts``: how often each occurs.
    """
    reached = counts.cumsum()
    last = int(reached[-1]) - 1
    found = []
    for share in wanted:
        rank = share / 100 * last
        below = int(rank)
        pair = reached.searchsorted([below, min(below + 1, last)], side="right")
        one, next_one = (float(values[place]) for place in pair)
        found.append(one + (next_one - one) * (rank - below))
    return tuple(found)
