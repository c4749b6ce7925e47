# SPDX-License-Identifier: Apache-2.0
"""PNG and JPEG to stored values, with Pillow."""

import struct
from typing import TYPE_CHECKING, Any

from gpuwarden.worker.engine import BadImageError
from gpuwarden.worker.engines.pictures import Picture, ReadableView, check_pixel_count

if TYPE_CHECKING:
    from PIL.Image import Image

PNG_MARK = b"\x89PNG\r\n\x1a\n"
JPEG_MARK = b"\xff\xd8\xff"
MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg"}
# How Pillow's modes are told to the world; a palette is read as the colours it stands for.
INTERPRETATIONS = {"L": "MONOCHROME2", "RGB": "RGB", "RGBA": "RGBA", "CMYK": "CMYK"}
GREY = 0  # a PNG's colour type


def format_of(body: memoryview) -> str:
    """ "PNG", "JPEG" or nothing, by the body's first bytes."""
    if bytes(body[: len(PNG_MARK)]) == PNG_MARK:
        return "PNG"
    return "JPEG" if bytes(body[: len(JPEG_MARK)]) == JPEG_MARK else ""


def decode(body: memoryview, name: str, max_pixels: int) -> Picture:
    """The picture of a PNG or JPEG file, as stored: EXIF rotation is not applied.

    Raises BadImageError.
    """
    import numpy  # noqa: PLC0415 - only this engine needs it

    deep = name == "PNG" and _is_deep(body)
    image = _load(body, name, max_pixels)
    if deep:
        samples: Any = numpy.asarray(image).astype("<u2", copy=False)
        return Picture(samples, 16, "MONOCHROME2", MEDIA_TYPES[name])
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    elif image.mode not in INTERPRETATIONS:
        image = image.convert("L" if image.mode in ("1", "LA") else "RGB")
    interpretation = INTERPRETATIONS[image.mode]
    return Picture(numpy.asarray(image), 8, interpretation, MEDIA_TYPES[name])


def _is_deep(body: memoryview) -> bool:
    """Whether a PNG holds 16 bits a sample. Raises BadImageError for colour in 16 bits."""
    try:
        depth, colour = struct.unpack_from("BB", body, 24)  # in the header chunk, which leads
    except struct.error as error:
        raise BadImageError("the PNG file is cut off within its header") from error
    if depth == 16 and colour != GREY:
        # Pillow would quietly drop the lower eight bits.
        raise BadImageError("a PNG with 16 bits a sample must be grey; send colour in 8 bits")
    return bool(depth == 16)


def _load(body: memoryview, name: str, max_pixels: int) -> "Image":
    from PIL import Image  # noqa: PLC0415 - only this engine needs it

    reader: Any = ReadableView(body)
    try:
        image: Image.Image = Image.open(reader, formats=[name])
        check_pixel_count(image.width, image.height, max_pixels)
        image.load()
    except (BadImageError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise BadImageError(f"more pixels than {max_pixels} (option max_pixels)") from error
    except Exception as error:  # a parser before hostile bytes: whatever it raises, they are bad
        raise BadImageError(
            f"the {name} file is truncated or damaged ({type(error).__name__}); send it whole"
        ) from error
    return image
