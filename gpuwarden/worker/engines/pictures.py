# SPDX-License-Identifier: Apache-2.0
"""What the image decoders of ``imagestats`` share: a picture, a limit, a reader of views."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional

from gpuwarden.worker.engine import BadImageError

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Picture:
    """Stored values of one image, rows x columns (x samples), 8 or 16 bits each.

    ``bit_depth`` is how many of these bits carry the image.
    """

    samples: "NDArray[numpy.integer[Any]]"
    bit_depth: int
    photometric_interpretation: str
    media_type: str


def check_pixel_count(width: int, height: int, limit: int) -> None:
    """Refuse before decoding what would fill the memory. Raises BadImageError."""
    if width < 1 or height < 1:
        raise BadImageError(f"an image of {width} x {height} pixels has nothing to read")
    if width * height > limit:
        raise BadImageError(
            f"{width} x {height} pixels are over the limit of {limit} (option max_pixels)"
        )


class ReadableView:
    """A file over a memoryview: what pydicom and Pillow read is copied once, and only that."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._position = 0

    def read(self, size: Optional[int] = -1) -> bytes:
        """Up to ``size`` bytes; all that is left for a negative number or None."""
        end = len(self._view) if size is None or size < 0 else self._position + size
        data = bytes(self._view[self._position : end])
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of any file; a place beyond the end reads as empty, one before the start is 0."""
        base = (0, self._position, len(self._view))[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """The place of the next read."""
        return self._position

    def close(self) -> None:
        """Nothing to close: the view belongs to the request."""
