# SPDX-License-Identifier: Apache-2.0
"""How many pixels an image says that it has, read from its header before anything decodes it.

A file of a few kilobytes can stand for gigabytes of pixels. Whatever engine runs, its images pass
here first, so that such a file is refused before it costs memory. What doesn't say is not refused:
its engine says what is wrong with it. What says it as no number is: its engine might read one.
"""

import struct
from typing import Optional

from gpuwarden.worker import dicom_header
from gpuwarden.worker.codestreams import JPEG_START, pixels_of_codestream
from gpuwarden.worker.engine import BadImageError, TooManyPixelsError

PNG_START = b"\x89PNG\r\n\x1a\n"


def check_pixels(image: memoryview, limit: int, place: str) -> None:
    """Refuse an image of too many pixels. Raises TooManyPixelsError, BadImageError.

    :param place: where the image stands in its request.
    """
    try:
        count = pixels_of(image, limit)
    except (dicom_header.DeflatedError, dicom_header.NumberError) as error:
        raise BadImageError(str(error), place) from error
    if count is not None and count > limit:
        raise TooManyPixelsError(
            f"the image says that it has {count} pixels; {limit} are allowed"
            " ([workers] max_pixels)",
            place,
        )


def pixels_of(image: memoryview, limit: int) -> Optional[int]:
    """The pixels that an image says it has, all frames together; None where it doesn't say."""
    start = bytes(image[: len(PNG_START)])
    if start == PNG_START:
        return _pixels_of_png(image)
    if start.startswith(JPEG_START):
        return pixels_of_codestream(image)
    if dicom_header.is_dicom(image):
        return dicom_header.pixels_of(image, limit)
    return None


def _pixels_of_png(image: memoryview) -> Optional[int]:
    if len(image) < 24:
        return None
    width, height = struct.unpack_from(">II", image, 16)  # IHDR leads, by the standard
    return int(width * height)
