# SPDX-License-Identifier: Apache-2.0
import hashlib
import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset

from gpuwarden.worker.engine import BadImageError, Context, Request
from gpuwarden.worker.engines.imagestats import ImageStatistics
from gpuwarden.worker.engines.statistics import PERCENTILES, statistics


def answer(body: bytes, media_type: str = "", **options: Any) -> dict[str, Any]:
    engine = ImageStatistics()
    engine.context = Context(model="imagestats", options=options)
    engine.load(engine.context)
    engine.prepare()
    prepared = engine.preprocess(Request(None, media_type, {}, memoryview(body)))
    figures = engine.postprocess(engine.predict([prepared])[0])
    assert isinstance(figures, dict)
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    return figures


def example(name: str) -> bytes:
    path = get_testdata_file(name)
    assert isinstance(path, str)
    return Path(path).read_bytes()


def ct() -> FileDataset:
    dataset = pydicom.dcmread(io.BytesIO(example("CT_small.dcm")))
    assert isinstance(dataset, FileDataset)
    return dataset


def written(dataset: FileDataset) -> bytes:
    target = io.BytesIO()
    dataset.save_as(target)
    return target.getvalue()


def encoded(samples: NDArray[Any], form: str, **options: Any) -> bytes:
    target = io.BytesIO()
    Image.fromarray(samples).save(target, form, **options)
    return target.getvalue()


def assert_figures(figures: dict[str, Any], samples: NDArray[Any]) -> None:
    assert (figures["height"], figures["width"]) == samples.shape[:2]
    assert (figures["min"], figures["max"]) == (samples.min(), samples.max())
    assert figures["mean"] == pytest.approx(samples.mean())
    expected = {str(p): float(numpy.percentile(samples, p)) for p in PERCENTILES}
    assert figures["percentiles"] == pytest.approx(expected)


def test_a_signed_ct_image_has_the_figures_of_its_stored_values() -> None:
    dataset = ct()
    stored = numpy.frombuffer(dataset.PixelData, "<i2").reshape(dataset.Rows, dataset.Columns)
    figures = answer(example("CT_small.dcm"), "application/dicom")
    assert_figures(figures, stored)
    assert figures["pixels_sha256"] == hashlib.sha256(dataset.PixelData).hexdigest()
    assert figures["media_type"] == "application/dicom"
    assert figures["photometric_interpretation"] == "MONOCHROME2"
    assert (figures["bit_depth"], figures["signed"], figures["samples_per_pixel"]) == (16, True, 1)


@pytest.mark.parametrize(("bits", "kind"), [(8, "<u1"), (12, "<u2"), (16, "<u2"), (12, "<i2")])
@pytest.mark.parametrize("interpretation", ["MONOCHROME1", "MONOCHROME2"])
def test_every_depth_and_both_greys_are_read_as_stored(
    bits: int, kind: str, interpretation: str
) -> None:
    low = -(2 ** (bits - 1)) if "i" in kind else 0
    stored = numpy.random.default_rng(1).integers(low, low + 2**bits, (20, 30)).astype(kind)
    dataset = ct()
    dataset.Rows, dataset.Columns, dataset.PhotometricInterpretation = 20, 30, interpretation
    dataset.BitsAllocated, dataset.BitsStored = stored.dtype.itemsize * 8, bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, int("i" in kind)
    dataset.PixelData = stored.tobytes()
    figures = answer(written(dataset))
    assert_figures(figures, stored)
    assert figures["bit_depth"] == bits
    assert figures["photometric_interpretation"] == interpretation
    assert figures["pixels_sha256"] == hashlib.sha256(stored.tobytes()).hexdigest()


@pytest.mark.parametrize(
    "name",
    ["MR_small_RLE.dcm", "JPEG2000.dcm", "SC_rgb_jpeg.dcm", "image_dfl.dcm", "ExplVR_BigEnd.dcm"],
)
def test_what_pydicom_can_decode_is_answered(name: str) -> None:
    pixels = pydicom.dcmread(io.BytesIO(example(name))).pixel_array
    figures = answer(example(name))
    assert_figures(figures, pixels)
    little = pixels.astype(pixels.dtype.newbyteorder("<"))
    assert figures["pixels_sha256"] == hashlib.sha256(little.tobytes()).hexdigest()


@pytest.mark.parametrize(
    ("samples", "form", "depth", "interpretation"),
    [
        (numpy.arange(600, dtype="u2").reshape(20, 30) * 109, "PNG", 16, "MONOCHROME2"),
        (numpy.arange(600).astype("u1").reshape(20, 30), "PNG", 8, "MONOCHROME2"),
        (numpy.arange(1800).astype("u1").reshape(20, 30, 3), "PNG", 8, "RGB"),
        (numpy.arange(2400).astype("u1").reshape(20, 30, 4), "PNG", 8, "RGBA"),
    ],
)
def test_a_png_is_answered_exactly(
    samples: NDArray[Any], form: str, depth: int, interpretation: str
) -> None:
    figures = answer(encoded(samples, form))
    assert_figures(figures, samples)
    assert (figures["bit_depth"], figures["media_type"]) == (depth, "image/png")
    assert figures["photometric_interpretation"] == interpretation
    assert figures["pixels_sha256"] == hashlib.sha256(samples.tobytes()).hexdigest()


def test_a_jpeg_is_answered_as_decoded() -> None:
    body = encoded(numpy.arange(1800).astype("u1").reshape(20, 30, 3), "JPEG", quality=90)
    figures = answer(body, "image/png")  # the bytes decide, not the announcement
    assert_figures(figures, numpy.asarray(Image.open(io.BytesIO(body))))
    assert (figures["media_type"], figures["bit_depth"]) == ("image/jpeg", 8)


def bad_dicom(**changes: Any) -> bytes:
    dataset = ct()
    for name, value in changes.items():
        setattr(dataset, name, value)
    return written(dataset)


def without(name: str) -> bytes:
    dataset = ct()
    delattr(dataset, name)
    return written(dataset)


def damaged(name: str) -> bytes:
    return example(name).replace(b"\xff\x4f\xff\x51", bytes(4))  # the codestream's start


def deep_colour_png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    pixels = zlib.compress((b"\0" + bytes(12)) * 2)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels)
    return png + chunk(b"IEND", b"")


GREY = numpy.arange(10000).astype("u1").reshape(100, 100)
RANDOM = numpy.random.default_rng(1).integers(0, 255, (100, 100)).astype("u1")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"<html>no</html>", "neither DICOM, PNG nor JPEG"),
        (without("PixelData"), r"CT Image Storage\) has no pixel data"),
        (example("test-SR.dcm"), "has no pixel data.*or is cut off"),
        (without("Rows"), "lacks Rows"),
        (bad_dicom(NumberOfFrames=3), "multi-frame object of 3 frames"),
        (bad_dicom(BitsAllocated=32), "32 bits allocated"),
        (bad_dicom(Rows=0), "0 pixels"),
        (bad_dicom(Rows=200), "truncated: pixel data has 32768 bytes.*need 51200"),
        (example("CT_small.dcm")[:-20000], "truncated|cut off"),
        (example("CT_small.dcm")[:200], "cut off"),
        (example("CT_small.dcm")[:500], "cut off|no pixel data"),
        (example("MR_truncated.dcm"), "truncated: pixel data has 8130 bytes.*need 8192"),
        (example("image_dfl.dcm")[:-500], "cut off"),
        (example("meta_missing_tsyntax.dcm"), "no transfer syntax"),
        (example("JPEGLSNearLossless_16.dcm"), r"no decoder.*JPEG-LS.*\(1\.2\.840"),
        (example("JPEG-lossy.dcm"), "JPEG Extended.*unsupported form; send it uncompressed"),
        (example("MR_small_jp2klossless.dcm")[:-3000], "or is cut off"),
        (damaged("MR_small_jp2klossless.dcm"), "JPEG 2000.*damaged.*; send it uncompressed"),
        (encoded(RANDOM, "PNG")[:-2000], "PNG file is truncated or damaged"),
        (encoded(RANDOM, "PNG")[:20], "cut off within its header"),
        (encoded(RANDOM, "JPEG")[:-2000], "JPEG file is truncated or damaged"),
        (deep_colour_png(), "16 bits a sample must be grey"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_image_is_told_what_would_be_right(body: bytes, text: str) -> None:
    with pytest.raises(BadImageError, match=text):
        answer(body)


def test_a_file_announced_as_dicom_without_its_mark_is_told_so() -> None:
    with pytest.raises(BadImageError, match="the bytes from 128 on are not 'DICM'"):
        answer(bytes(1000), "application/dicom")


@pytest.mark.parametrize("body", [example("CT_small.dcm"), encoded(GREY, "PNG")])
def test_more_pixels_than_allowed_are_not_decoded(body: bytes) -> None:
    with pytest.raises(BadImageError, match="over the limit of 9999"):
        answer(body, max_pixels=9999)


def test_a_deflated_bomb_is_not_inflated_whole() -> None:
    whole = example("image_dfl.dcm")
    (length,) = struct.unpack_from("<I", whole, 140)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = packer.compress(bytes(50_000_000)) + packer.flush()
    with pytest.raises(BadImageError, match="bytes inflated"):
        answer(whole[: 144 + length] + bomb, max_pixels=1_000_000)


@settings(deadline=None)  # the first example imports the decoders
@given(
    st.lists(st.integers(-32768, 32767), min_size=1, max_size=200),
    st.sampled_from(["<i2", "<u2", "u1", ">i2"]),
)
def test_figures_are_those_of_numpy(values: list[int], kind: str) -> None:
    samples = numpy.array(values, dtype="i8").astype(kind).reshape(1, -1)
    figures = statistics(samples)
    assert figures["min"] == samples.min()
    assert figures["max"] == samples.max()
    assert figures["mean"] == pytest.approx(samples.mean(dtype="f8"))
    for percent in PERCENTILES:
        expected = numpy.percentile(samples.astype("f8"), percent)
        assert figures["percentiles"][str(percent)] == pytest.approx(expected)


@settings(deadline=None)  # the first example imports the decoders
@given(st.binary(max_size=300), st.sampled_from(["PNG", "JPEG", "DICOM", "CT", "JP2"]))
def test_damaged_bytes_are_a_bad_image_or_an_image(noise: bytes, kind: str) -> None:
    start = {
        "PNG": b"\x89PNG\r\n\x1a\n",
        "JPEG": b"\xff\xd8\xff",
        "DICOM": bytes(128) + b"DICM",
        "CT": example("CT_small.dcm")[:1000],
        "JP2": example("JPEG2000.dcm")[:5000],
    }[kind]
    try:
        figures = answer(start + noise)
    except BadImageError as error:
        assert str(error)
    else:
        assert figures["width"] > 0
