# SPDX-License-Identifier: Apache-2.0
"""What an image says of its size is read, and refused, before anything decodes it."""

import contextlib
import io
import resource
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ImplicitVRLittleEndian, JPEGBaseline8Bit

from gpuwarden.worker.engine import BadImageError, TooManyPixelsError
from gpuwarden.worker.memory import data_bytes
from gpuwarden.worker.pixels import check_pixels, pixels_of

LIMIT = 64 << 20
# A number of frames that is none; a codestream whose header holds a delimiter in place of its size.
UNTOLD = {"badVR.dcm", "JPEG2000-embedded-sequence-delimiter.dcm"}


def example_folder() -> str:
    return str(Path(pydicom.data.__file__).parent / "test_files")


def example(name: str) -> bytes:
    path = get_testdata_file(name)
    assert isinstance(path, str)
    return Path(path).read_bytes()


def counted(image: bytes) -> int | None:
    return pixels_of(memoryview(image), LIMIT)


def ct(**changes: Any) -> FileDataset:
    dataset = pydicom.dcmread(io.BytesIO(example("CT_small.dcm")))
    assert isinstance(dataset, FileDataset)
    for name, value in changes.items():
        setattr(dataset, name, value)
    return dataset


def written(dataset: FileDataset, syntax: UID | None = None) -> bytes:
    target = io.BytesIO()
    if syntax is not None:
        dataset.file_meta.TransferSyntaxUID = syntax
    pydicom.dcmwrite(target, dataset, enforce_file_format=True)
    return target.getvalue()


def encoded(form: str, width: int, height: int) -> bytes:
    target = io.BytesIO()
    Image.fromarray(numpy.zeros((height, width), "u1")).save(target, form)
    return target.getvalue()


def png_of(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says so."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk


def jpeg_of(width: int, height: int, before: bytes = b"") -> bytes:
    """A JPEG's beginning that says so."""
    frame = struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\x00"
    return (
        b"\xff\xd8" + before + b"\xff\xc0" + struct.pack(">H", len(frame) + 2) + frame + b"\0" * 9
    )


def test_what_dicom_files_say_is_read_in_every_encoding_as_pydicom_reads_it() -> None:
    wrong, seen = [], 0
    for path in sorted(Path(example_folder()).glob("*.dcm")):
        body = path.read_bytes()
        if body[128:132] != b"DICM" or path.name in UNTOLD:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path, specific_tags=["Rows", "Columns", "NumberOfFrames"])
        told = None
        if "Rows" in dataset and "Columns" in dataset:
            told = dataset.Rows * dataset.Columns * int(dataset.get("NumberOfFrames") or 1)
        seen += told is not None
        if counted(body) != told:
            wrong.append((path.name, told, counted(body)))
    assert wrong == []
    assert seen > 40


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_what_rasters_say_is_read(form: str) -> None:
    assert counted(encoded(form, 123, 45)) == 123 * 45


@pytest.mark.parametrize(
    "image",
    [
        png_of(60_000, 60_000),
        jpeg_of(65_535, 65_535),
        jpeg_of(65_535, 65_535, before=b"\xff\xe1\x00\x06Exif\xff\xff"),
        jpeg_of(8, 8) + jpeg_of(65_535, 65_535)[2:],
        jpeg_of(65_535, 65_535, before=b"\xff\0" * 1000),
        written(ct(Rows=65_535, Columns=65_535)),
        written(ct(NumberOfFrames="100000")),
        written(ct(Rows=65_535, Columns=65_535), ImplicitVRLittleEndian),
    ],
    ids=["png", "jpeg", "jpeg-behind-exif", "two-frames", "filling", "dicom", "frames", "implicit"],
)
def test_a_bomb_is_refused_by_what_it_says(image: bytes) -> None:
    with pytest.raises(TooManyPixelsError, match=f"{LIMIT} are allowed") as refused:
        check_pixels(memoryview(image), LIMIT, "image")
    assert refused.value.param == "image"


FRAMES = b"\x28\0\x08\0IS\x04\x001000"  # as they are written
START, TAG = FRAMES[:-4], FRAMES[:4]


def with_frames(element: bytes) -> bytes:
    """An object of 8,000 x 8,000 pixels whose number of frames is written in this way."""
    body = written(ct(Rows=8000, Columns=8000, NumberOfFrames="1000"))
    assert body.count(FRAMES) == 1
    return body.replace(FRAMES, element)


@pytest.mark.parametrize(
    "element",
    [
        *(START + number for number in (b"+999", b"1E3 ", b"999.", b" 999", b"99_9", b"9E99")),
        TAG + b"IS\x14\0" + b"%020d" % 999,
    ],
)
def test_frames_are_counted_as_pydicom_reads_them(element: bytes) -> None:
    image = with_frames(element)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = pydicom.dcmread(io.BytesIO(image)).NumberOfFrames
    assert counted(image) == 8000 * 8000 * int(read)
    with pytest.raises(TooManyPixelsError):
        check_pixels(memoryview(image), LIMIT, "image")


@pytest.mark.parametrize("number", [b"    ", b"\0\0\0\0", b"1\0\0\0", b"0001", b"0   "])
def test_no_frames_and_one_are_one(number: bytes) -> None:
    assert counted(with_frames(START + number)) == 8000 * 8000


@pytest.mark.parametrize(
    "element",
    [
        *(START + number for number in (b"1\\99", b"99.5", b"-999", b"0x9f", b"inf ", b"nan ")),
        TAG + b"IS\x0a\x001E99999999",
        TAG + b"IS\x78\0" + b"999".rjust(120),
        TAG + b"UL\x04\x001   ",  # 538,976,305
        b"\x28\0\x10\0UL\x04\0\x01\0\x01\0" + FRAMES,  # 65,537 rows
        b"\x28\0\x11\0US\x04\0\x01\0\xff\xff" + FRAMES,  # columns: two numbers
    ],
)
def test_what_is_no_whole_number_is_a_bad_image(element: bytes) -> None:
    with pytest.raises(BadImageError) as refused:
        check_pixels(memoryview(with_frames(element)), LIMIT, "image")
    assert refused.value.param == "image"


def test_a_small_object_with_a_large_codestream_in_it_is_refused() -> None:
    dataset = ct(Rows=8, Columns=8, PixelData=encapsulate([jpeg_of(65_535, 65_535)]))
    dataset["PixelData"].is_undefined_length = True
    with pytest.raises(TooManyPixelsError):
        check_pixels(memoryview(written(dataset, JPEGBaseline8Bit)), LIMIT, "image")


def test_sequences_of_undefined_length_and_unknown_form_are_walked_through() -> None:
    dataset = ct(Rows=300, Columns=200)
    nested = pydicom.Dataset()
    nested.Rows, nested.Columns = 9, 9
    dataset.IconImageSequence = pydicom.Sequence([nested, nested])
    dataset["IconImageSequence"].is_undefined_length = True
    nested.is_undefined_length_sequence_item = True
    body = written(dataset)
    assert counted(body) == 300 * 200
    assert counted(body.replace(b"SQ\0\0\xff\xff\xff\xff", b"UN\0\0\xff\xff\xff\xff")) is not None


def test_a_deflated_bomb_is_told_from_its_unfolding() -> None:
    whole = example("image_dfl.dcm")
    (length,) = struct.unpack_from("<I", whole, 140)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = packer.compress(bytes(20_000_000)) + packer.flush()
    with pytest.raises(BadImageError, match="bytes inflated"):
        check_pixels(memoryview(whole[: 144 + length] + bomb), 1_000_000, "image")


@given(st.binary(max_size=400), st.sampled_from([b"", png_of(1, 1), jpeg_of(1, 1), b"\0" * 128]))
def test_law_no_bytes_make_the_look_fail(tail: bytes, head: bytes) -> None:
    for image in (head + tail, head[:128] + b"DICM" + tail, tail):
        check_or_refuse(image)


@given(st.integers(0, 39_000), st.binary(min_size=1, max_size=8))
def test_law_a_damaged_dicom_file_never_makes_the_look_fail(place: int, damage: bytes) -> None:
    body = bytearray(example("CT_small.dcm"))
    body[place : place + len(damage)] = damage
    check_or_refuse(bytes(body[: len(body) - len(damage)]))


def check_or_refuse(image: bytes) -> None:
    """Nothing but a refusal by name is raised."""
    with contextlib.suppress(BadImageError, TooManyPixelsError):
        check_pixels(memoryview(image), LIMIT, "image")


def test_a_cpu_process_may_take_so_much_more_memory_and_no_more() -> None:
    program = (
        "from gpuwarden.worker.memory import limit_memory\n"
        "limit_memory(100 << 20)\nkept = bytes(50 << 20)\n"
        "try: bytes(200 << 20)\nexcept MemoryError: print('refused')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "refused\n"
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] != 100 << 20
    assert data_bytes("Name:\tx\nVmData:\t    12 kB\n") == 12_288
