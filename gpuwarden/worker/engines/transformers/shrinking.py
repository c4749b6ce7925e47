# SPDX-License-Identifier: Apache-2.0
"""Large grey images brought to the size of the model's eyes: in bands, on a few threads at once.

Each band is shaded and resized by Pillow while it is in a CPU's cache, so that nothing as large as
the image is ever written; the bands together are what Pillow makes of the whole.
"""

import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Optional, Tuple

HANDS_LIMIT = 4  # threads of one process: a node runs several, and an image is no longer than that
BAND_PIXELS = 1 << 20  # of the image: with what Pillow needs beside it, a CPU's cache of 2 MiB
LINES_PIXELS = 1 << 16  # looked up at a time: their indices are 8 bytes each
NEAREST = 0  # of Pillow: picks lines one after the other, which bands would pick otherwise
REACH = {0: 0.0, 1: 3.0, 2: 1.0, 3: 2.0, 4: 0.5, 5: 1.0}  # of Pillow's filters, by its numbers
SPARE_LINES = 2  # beyond a filter's reach, for what is rounded


class Shrinker:
    """Brings images to one size.

    :param size: (height, width) wanted.
    :param resample: Pillow's number of a filter.
    :param hands: threads; None: as many as make sense here.
    """

    def __init__(self, size: Tuple[int, int], resample: int, hands: Optional[int] = None) -> None:
        cpus = len(os.sched_getaffinity(0))
        self._size = size
        self._resample = resample
        self._hands = ThreadPoolExecutor(hands or min(HANDS_LIMIT, cpus), "shrinking")
        self._room = threading.local()

    def shrunk(self, samples: Any, table: Any) -> Any:
        """An image in that size, [height, width] of 8 bits.

        :param samples: [height, width], whole numbers without a sign.
        :param table: the shade of each value.
        """
        import numpy  # noqa: PLC0415 - only this engine needs it

        found = numpy.empty(self._size, dtype="u1")

        def fill(band: Tuple[int, int]) -> None:
            first, end = band
            found[first:end] = self._band(samples, table, first, end)

        list(self._hands.map(fill, self._bands(samples.shape)))
        return found

    def _bands(self, shape: Tuple[int, int]) -> Any:
        """Lines of the result, each band's first one and the one behind its last."""
        height, lines = self._size[0], shape[0]
        count = min(height, math.ceil(lines * shape[1] / BAND_PIXELS))
        if self._resample == NEAREST:
            count = 1
        edges = [height * number // count for number in range(count + 1)]
        return list(zip(edges, edges[1:]))

    def _band(self, samples: Any, table: Any, first: int, end: int) -> Any:
        from PIL import Image  # noqa: PLC0415 - only this engine needs it

        (height, width), (lines, columns) = self._size, samples.shape
        reach = REACH[self._resample] * max(1.0, lines / height) + SPARE_LINES
        top = max(0, math.floor(first * lines / height - reach))
        bottom = min(lines, math.ceil(end * lines / height + reach))
        shades = Image.fromarray(self._shaded(samples[top:bottom], table))
        box = (0, first * lines / height - top, columns, end * lines / height - top)
        return shades.resize((width, end - first), Image.Resampling(self._resample), box)

    def _shaded(self, samples: Any, table: Any) -> Any:
        """Each value's shade, in this thread's own memory: until it does the next band."""
        import numpy  # noqa: PLC0415 - only this engine needs it

        room = getattr(self._room, "shades", None)
        if room is None or room.size < samples.size:
            room = self._room.shades = numpy.empty(samples.size, dtype="u1")
        found = room[: samples.size].reshape(samples.shape)
        step = max(1, LINES_PIXELS // samples.shape[1])
        for line in range(0, samples.shape[0], step):
            part = slice(line, line + step)
            table.take(samples[part], out=found[part], mode="clip")  # else take() copies it
        return found
