# SPDX-License-Identifier: Apache-2.0
"""What a DICOM object says of its size: rows, columns, frames, and its codestreams' own.

A walk over the elements of the outermost level, up to the pixel data, that reads five numbers and
steps over the rest. Deflated objects are inflated in pieces, of which only the first is kept.
"""

import math
import struct
import zlib
from contextlib import suppress
from typing import Dict, List, NamedTuple, Optional, Tuple

from gpuwarden.worker.codestreams import pixels_of_codestream

PREAMBLE_BYTES = 128  # DICOM part 10, 7.1
MARK = b"DICM"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
LONG_FORMS = b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split()  # part 5, 7.1.2
UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
SYNTAX, FRAMES, ROWS, COLUMNS, PIXELS = 0x00020010, 0x00280008, 0x00280010, 0x00280011, 0x7FE00010
FORMS = {FRAMES: b"IS", ROWS: b"US", COLUMNS: b"US"}  # part 6
UNTOLD_FORMS = (b"", b"UN")  # readers go by the tag then
NUMBER_LIMIT_BYTES = 64  # of a number in words; the standard allows 12
ELEMENTS_LIMIT = 100_000
FRAGMENTS_LIMIT = 65_536
HEAD_BYTES = 4 << 20  # of an inflated object, that are walked
PIECE_BYTES = 1 << 20  # inflated at a time
BYTES_A_PIXEL = 6  # the most that an object needs: three samples of 16 bits


class DeflatedError(Exception):
    """A deflated object is damaged, or unfolds to more than its pixels can need."""


class NumberError(Exception):
    """Rows, columns or frames are there, and not as a whole number."""


class Element(NamedTuple):
    """One element: where its value lies, and how long it is."""

    tag: int
    form: bytes
    start: int
    length: int


class Encoding(NamedTuple):
    """How elements are written."""

    order: str
    explicit: bool


def is_dicom(body: memoryview) -> bool:
    """Whether a body is a DICOM file by its mark."""
    return bytes(body[PREAMBLE_BYTES : PREAMBLE_BYTES + len(MARK)]) == MARK


def pixels_of(body: memoryview, limit: int) -> Optional[int]:
    """Pixels of all frames, as elements or codestreams say; None where they don't.

    :param limit: the pixels that are allowed, from which follows what may be inflated.
    :raises DeflatedError: it is deflated, and damaged or too large inflated.
    :raises NumberError: what it says is no number: nobody knows what a reader makes of it.
    """
    try:
        syntax, start = _meta(body)
        if syntax == DEFLATED:
            body, start = memoryview(_inflated(body[start:], BYTES_A_PIXEL * limit)), 0
        # Some files are not written in the way that they name: readers go by the first element.
        form = bytes(body[start + 4 : start + 6])
        explicit = form.isalpha() and form.isupper()
        encoding = Encoding(">" if syntax == BIG_ENDIAN else "<", explicit)
        return _walk(body, start, encoding)
    except (struct.error, IndexError):
        return None  # it ends too early: its engine says so


def _meta(body: memoryview) -> Tuple[str, int]:
    """Transfer syntax, and where the object begins behind the meta group."""
    position, syntax = PREAMBLE_BYTES + len(MARK), ""
    while True:
        element = _element(body, position, Encoding("<", explicit=True))
        if element.tag >> 16 != 2:
            return syntax, position
        end = element.start + element.length
        if element.tag == SYNTAX:
            syntax = bytes(body[element.start : end]).decode("ascii", "replace").strip("\0 ")
        position = end


def _element(body: memoryview, position: int, encoding: Encoding) -> Element:
    order = encoding.order
    group, number = struct.unpack_from(f"{order}HH", body, position)
    tag = group << 16 | number
    if group == 0xFFFE or not encoding.explicit:
        (length,) = struct.unpack_from(f"{order}I", body, position + 4)
        return Element(tag, b"", position + 8, length)
    form = bytes(body[position + 4 : position + 6])
    if form in LONG_FORMS:
        (length,) = struct.unpack_from(f"{order}I", body, position + 8)
        return Element(tag, form, position + 12, length)
    (length,) = struct.unpack_from(f"{order}H", body, position + 6)
    return Element(tag, form, position + 8, length)


def _walk(body: memoryview, position: int, encoding: Encoding) -> Optional[int]:
    numbers: Dict[int, int] = {}
    within: List[Encoding] = []  # sequences of undefined length that are open, and their items
    for _ in range(ELEMENTS_LIMIT):
        if position >= len(body):
            break
        element = _element(body, position, within[-1] if within else encoding)
        position = element.start
        if not within and element.tag >= PIXELS:
            encapsulated = element.tag == PIXELS and element.length == UNDEFINED
            return _count(numbers, _of_fragments(body, position) if encapsulated else None)
        if element.tag in (ITEM_END, SEQUENCE_END):
            del within[-1:]
        elif element.length == UNDEFINED:
            outer = within[-1] if within else encoding
            # Of unknown form means implicit within (DICOM part 5, 6.2.2).
            within.append(Encoding("<", explicit=False) if element.form == b"UN" else outer)
        else:
            if not within and element.tag in FORMS and element.length:
                numbers[element.tag] = _number(body, element, encoding)
            position += element.length
    return _count(numbers, None)


def _count(numbers: Dict[int, int], streamed: Optional[int]) -> Optional[int]:
    """All frames' pixels; of one, what the elements or what the codestreams say: the more."""
    counts = [] if streamed is None else [streamed]
    if ROWS in numbers and COLUMNS in numbers:
        counts.append(numbers[ROWS] * numbers[COLUMNS])
    return max(1, numbers.get(FRAMES, 1)) * max(counts) if counts else None


def _number(body: memoryview, element: Element, encoding: Encoding) -> int:
    if element.form not in (*UNTOLD_FORMS, FORMS[element.tag]):
        raise NumberError("the DICOM object's size is not written as a number of its kind")
    if element.tag == FRAMES:
        return _frames(body[element.start : element.start + element.length])
    if element.length != struct.calcsize("H"):
        raise NumberError("the DICOM object's rows or columns are no single number")
    return int(struct.unpack_from(f"{encoding.order}H", body, element.start)[0])


def _frames(value: memoryview) -> int:
    """A number in words, as pydicom reads it: ``+9``, ``9.`` and ``9E2`` are numbers, too."""
    number = math.nan
    if len(value) <= NUMBER_LIMIT_BYTES:
        with suppress(ValueError):
            number = float(bytes(value).decode("latin-1").strip("\0 ") or 1)
    if not number.is_integer() or number < 0:  # what has no end is none either
        raise NumberError("the DICOM object's number of frames is no whole number")
    return int(number)


def _of_fragments(body: memoryview, position: int) -> Optional[int]:
    """The most that any codestream in encapsulated pixel data says of its own size."""
    found: Optional[int] = None
    for _ in range(FRAGMENTS_LIMIT):
        if position + 8 > len(body):
            break
        group, number, length = struct.unpack_from("<HHI", body, position)
        if (group << 16 | number) != ITEM:
            break
        count = pixels_of_codestream(body[position + 8 : position + 8 + length])
        if count is not None:
            found = max(found or 0, count)
        position += 8 + length
    return found


def _inflated(packed: memoryview, limit: int) -> bytes:
    """The beginning of a deflated object, all of which was inflated to see how much it is."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    limit += HEAD_BYTES
    head, size = b"", 0
    try:
        for start in range(0, len(packed), PIECE_BYTES):
            rest = bytes(packed[start : start + PIECE_BYTES])
            while rest and not inflater.eof:
                piece = inflater.decompress(rest, PIECE_BYTES)
                rest = inflater.unconsumed_tail
                size += len(piece)
                if len(head) < HEAD_BYTES:
                    head += piece
                if size > limit:
                    text = f"the deflated DICOM object has over {limit} bytes inflated"
                    raise DeflatedError(text)
    except zlib.error as error:
        raise DeflatedError("the deflated DICOM object is damaged or cut off") from error
    return head
