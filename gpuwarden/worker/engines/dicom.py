# SPDX-License-Identifier: Apache-2.0
"""DICOM files to stored values, with pydicom from 2.3 (Debian 12) to 3."""

import struct
import zlib
from typing import TYPE_CHECKING, Any, Dict, Optional

from gpuwarden.worker.engine import BadImageError
from gpuwarden.worker.engines.pictures import Picture, ReadableView, check_pixel_count

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

MEDIA_TYPE = "application/dicom"
PREAMBLE_BYTES = 128  # DICOM part 10, 7.1
MARK = b"DICM"
DEFLATED = "1.2.840.10008.1.2.1.99"
TRANSFER_SYNTAX_ELEMENT = 0x0010
LONG_FORMS = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT")
NEEDED = ("Rows", "Columns", "BitsAllocated", "PhotometricInterpretation")
NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")  # as they are, little endian
PIXELS = struct.pack("<HH", 0x7FE0, 0x0010)


def is_dicom(body: memoryview) -> bool:
    """Whether a body is a DICOM file by its mark."""
    return bytes(body[PREAMBLE_BYTES : PREAMBLE_BYTES + len(MARK)]) == MARK


def decode(body: memoryview, max_pixels: int) -> Picture:
    """The picture of a DICOM file with one frame. Raises BadImageError."""
    syntax = _transfer_syntax(body)
    if syntax == DEFLATED:
        _check_inflated_size(body, max_pixels)
    dataset = _read(body)
    numbers = _describe(dataset, max_pixels)
    _check_length(dataset, numbers, syntax)
    samples = _pixels(dataset, syntax)
    if samples.dtype.itemsize > 2 or samples.dtype.kind not in "iu":
        raise BadImageError(f"stored values of type {samples.dtype} are neither 8 nor 16 bits wide")
    return Picture(
        samples=samples,
        bit_depth=numbers["BitsStored"],
        photometric_interpretation=str(dataset.PhotometricInterpretation),
        media_type=MEDIA_TYPE,
    )


def stored(body: memoryview, max_pixels: int) -> Optional[Picture]:
    """The grey values of an uncompressed file where they lie in its body, nothing copied.

    What ``bit_depth`` leaves of their bits is not cleared. None: ``decode`` is to read it, or to
    say what is wrong with it. Raises BadImageError.
    """
    if not is_dicom(body) or _transfer_syntax(body) not in NATIVE:
        return None
    reader = ReadableView(body)
    dataset = _parsed(reader, whole=False)
    lying, kind = _pixel_data(body, reader.tell()), _kind(dataset)
    if lying is None or kind is None:
        return None
    numbers = _describe(dataset, max_pixels)
    size, count = numbers["BitsAllocated"] // 8, numbers["Rows"] * numbers["Columns"]
    depth = numbers["BitsStored"]
    if numbers["SamplesPerPixel"] != 1 or not 0 < depth <= 8 * size or len(lying) < count * size:
        return None
    import numpy  # noqa: PLC0415 - only this engine needs it

    values = numpy.frombuffer(lying, dtype=f"<{kind}{size}", count=count)
    return Picture(
        samples=values.reshape(numbers["Rows"], numbers["Columns"]),
        bit_depth=depth,
        photometric_interpretation=str(dataset.PhotometricInterpretation),
        media_type=MEDIA_TYPE,
    )


def _kind(dataset: "FileDataset") -> Optional[str]:
    """numpy's letter for values with or without a sign; None if the file doesn't say."""
    try:
        return {0: "u", 1: "i"}.get(dataset.get("PixelRepresentation"))
    except Exception:  # noqa: BLE001 - elements are parsed when asked for: decode says what's wrong
        return None


def _pixel_data(body: memoryview, position: int) -> Optional[memoryview]:
    """The value of the pixel data element at a place; None if there is none of known length."""
    head = bytes(body[position : position + 12])
    if len(head) < 12 or head[:4] != PIXELS:
        return None
    is_explicit = head[4:6] in (b"OB", b"OW")
    start = position + (12 if is_explicit else 8)
    (length,) = struct.unpack("<I", head[8:] if is_explicit else head[4:8])
    return body[start : start + length] if length <= len(body) - start else None


def _transfer_syntax(body: memoryview) -> str:
    """The transfer syntax out of the file's meta group, which is always explicit little endian."""
    position = PREAMBLE_BYTES + len(MARK)
    try:
        while True:
            group, element, form, length = struct.unpack_from("<HH2sH", body, position)
            position += 8
            if form in LONG_FORMS:
                (length,) = struct.unpack_from("<I", body, position)
                position += 4
            if group != 2:
                break
            if element == TRANSFER_SYNTAX_ELEMENT:
                value = bytes(body[position : position + length])
                return value.decode("ascii", "replace").strip("\0 ")
            position += length
    except struct.error:
        pass  # the file ends within its meta group: told below
    raise BadImageError(
        "the DICOM file names no transfer syntax (0002,0010): it is damaged or cut off; "
        "send a complete DICOM part 10 file"
    )


def _check_inflated_size(body: memoryview, max_pixels: int) -> None:
    """A deflated dataset is inflated as a whole before anything of it is known."""
    limit = 2 * max_pixels + len(body)
    start = PREAMBLE_BYTES + len(MARK)
    (length,) = struct.unpack_from("<I", body, start + 8)  # (0002,0000) leads the meta group
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        size = len(inflater.decompress(body[start + 12 + length :], limit + 1))
    except zlib.error as error:
        raise BadImageError("the deflated DICOM dataset is damaged or cut off") from error
    if size > limit:
        raise BadImageError(f"the deflated DICOM dataset has over {limit} bytes inflated")


def _read(body: memoryview) -> "FileDataset":
    return _parsed(ReadableView(body), whole=True)


def _parsed(reader: Any, *, whole: bool) -> "FileDataset":
    """All elements, or those before the pixel data, where the reader then stands."""
    import pydicom  # noqa: PLC0415 - only this engine needs it

    try:
        dataset = pydicom.dcmread(reader, stop_before_pixels=not whole)
        if whole and "PixelData" not in dataset:
            raise BadImageError(
                f"the DICOM object ({_class_name(dataset)}) has no pixel data (7FE0,0010) "
                "or is cut off; send a whole image object"
            )
    except (BadImageError, MemoryError):
        raise
    except Exception as error:  # a parser before hostile bytes: whatever it raises, they are bad
        raise BadImageError(
            f"the DICOM file cannot be read, it is damaged or cut off ({type(error).__name__})"
        ) from error
    return dataset


def _class_name(dataset: "FileDataset") -> str:
    from pydicom.uid import UID  # noqa: PLC0415 - only this engine needs it

    uid = UID(str(dataset.get("SOPClassUID", "")))
    return uid.name if uid and not uid.is_private else "of unknown class"


def _describe(dataset: "FileDataset", max_pixels: int) -> Dict[str, int]:
    missing = [name for name in NEEDED if dataset.get(name) in (None, "")]
    if missing:
        raise BadImageError(f"the DICOM object lacks {', '.join(missing)}, which images need")
    numbers = {
        "Rows": _number(dataset, "Rows"),
        "Columns": _number(dataset, "Columns"),
        "BitsAllocated": _number(dataset, "BitsAllocated"),
        "SamplesPerPixel": _number(dataset, "SamplesPerPixel", 1),
        "NumberOfFrames": _number(dataset, "NumberOfFrames", 1),
    }
    numbers["BitsStored"] = _number(dataset, "BitsStored", numbers["BitsAllocated"])
    if numbers["BitsAllocated"] not in (8, 16):
        raise BadImageError(
            f"{numbers['BitsAllocated']} bits allocated a sample; 8 and 16 can be read"
        )
    if numbers["NumberOfFrames"] != 1:
        raise BadImageError(
            f"a multi-frame object of {numbers['NumberOfFrames']} frames; send one frame"
        )
    if numbers["SamplesPerPixel"] not in (1, 3):
        raise BadImageError(f"{numbers['SamplesPerPixel']} samples a pixel; 1 and 3 can be read")
    check_pixel_count(numbers["Columns"], numbers["Rows"], max_pixels)
    return numbers


def _number(dataset: "FileDataset", name: str, default: Optional[int] = None) -> int:
    value = dataset.get(name)
    try:
        return int(default if value in (None, "") and default is not None else value)
    except (TypeError, ValueError) as error:
        raise BadImageError(f"the DICOM element {name} holds no whole number") from error


def _check_length(dataset: "FileDataset", numbers: Dict[str, int], syntax: str) -> None:
    from pydicom.uid import UID  # noqa: PLC0415 - only this engine needs it

    if UID(syntax).is_private or _is_compressed(syntax):
        return
    count = numbers["Rows"] * numbers["Columns"] * numbers["SamplesPerPixel"]
    wanted = count * numbers["BitsAllocated"] // 8
    if dataset.PhotometricInterpretation == "YBR_FULL_422":
        wanted = wanted * 2 // 3
    if len(dataset.PixelData) < wanted:
        raise BadImageError(
            f"truncated: pixel data has {len(dataset.PixelData)} bytes, "
            f"{numbers['Columns']} x {numbers['Rows']} pixels need {wanted}; send the whole file"
        )


def _is_compressed(syntax: str) -> bool:
    from pydicom.uid import UID  # noqa: PLC0415 - only this engine needs it

    try:
        return UID(syntax).is_compressed
    except ValueError:  # no transfer syntax that pydicom knows: decoding will tell
        return True


def _pixels(dataset: "FileDataset", syntax: str) -> Any:
    from pydicom.uid import UID  # noqa: PLC0415 - only this engine needs it

    try:
        return dataset.pixel_array
    except MemoryError:
        raise
    except Exception as error:  # decoders before hostile bytes: whatever they raise, they are bad
        name = f"{UID(syntax).name} ({syntax})"
        if not _is_compressed(syntax):
            text = f"the pixel data cannot be read: damaged or cut off ({type(error).__name__})"
        elif _has_decoder(syntax):
            text = f"pixel data in transfer syntax {name} is damaged or of an unsupported form"
        else:
            text = f"no decoder for transfer syntax {name} is installed"
        hint = "" if not _is_compressed(syntax) else "; send it uncompressed (Explicit VR LE)"
        raise BadImageError(text + hint) from error


def _has_decoder(syntax: str) -> bool:
    """Whether this interpreter can decode a transfer syntax in principle."""
    from pydicom.uid import UID  # noqa: PLC0415 - only this engine needs it

    try:
        from pydicom.pixels.decoders.base import get_decoder  # noqa: PLC0415 - pydicom 3
    except ImportError:
        from pydicom import config  # noqa: PLC0415 - pydicom 2

        handlers: Any = config.pixel_data_handlers
        return any(h.is_available() and h.supports_transfer_syntax(UID(syntax)) for h in handlers)
    try:
        return bool(get_decoder(UID(syntax)).is_available)
    except NotImplementedError:
        return False
