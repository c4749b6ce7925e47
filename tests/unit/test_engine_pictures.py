# SPDX-License-Identifier: Apache-2.0
"""Pictures for the engine's eyes: what numpy, pydicom and Pillow make of the whole image."""

import io
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

from gpuwarden.worker.engines import dicom
from gpuwarden.worker.engines.transformers.shrinking import Shrinker
from gpuwarden.worker.engines.transformers.windowing import unsigned, window_table

WINDOW = (0.5, 99.5)
MANY = 1 << 30


def noise(lines: int, columns: int, kind: str = "<u2", *, most: int = 4095) -> NDArray[Any]:
    random = numpy.random.default_rng(lines * columns)
    shades = numpy.add.outer(numpy.arange(lines), numpy.arange(columns)) * most // (lines + columns)
    values = shades // 2 + random.integers(0, most // 2 + 1, (lines, columns))
    return values.astype(kind) if "u" in kind else (values - most // 2).astype(kind)


def by_numpy(samples: NDArray[Any]) -> NDArray[Any]:
    """The shades of an image that is small enough to be read as a whole."""
    low, high = (float(one) for one in numpy.percentile(samples, WINDOW))
    wide = samples.astype("f4")
    return ((wide - low) * (255 / (high - low))).clip(0, 255).round().astype("u1")


@pytest.mark.parametrize("kind", ["<u2", "<i2", ">u2", "u1", "i1"])
def test_shades_are_those_of_the_percentiles(kind: str) -> None:
    samples = noise(300, 200, kind, most=4095 if "2" in kind else 240)
    table = window_table(samples, WINDOW)
    assert numpy.array_equal(table[unsigned(samples)], by_numpy(samples))


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=40), st.integers(0, 65535))
@settings(max_examples=200, deadline=None)
def test_any_few_values_give_the_shades_of_numpys_percentiles(few: list[int], odd: int) -> None:
    samples = numpy.asarray([[*few, odd]], dtype="<u2")
    low, high = numpy.percentile(samples, WINDOW)
    if high > low:
        assert numpy.array_equal(window_table(samples, WINDOW)[samples], by_numpy(samples))
    else:
        assert not window_table(samples, WINDOW)[samples].any()


def test_an_image_with_one_odd_value_shows_it() -> None:
    samples = numpy.zeros((100, 100), dtype="<u2")
    samples[50, 50] = 9
    shades = window_table(samples, WINDOW)[samples]
    assert (shades[50, 50], shades[0, 0]) == (255, 0)


def test_bits_that_carry_no_image_count_for_nothing() -> None:
    clean = noise(64, 64, "<i2", most=2000)
    dirty = clean ^ numpy.int16(0x5000 - 0x8000)  # of 12 bits, what lies above them is anything
    wanted = window_table(clean, WINDOW)[unsigned(clean)]
    assert numpy.array_equal(window_table(dirty, WINDOW, 12)[unsigned(dirty)], wanted)


def test_a_large_image_is_sampled_and_its_shades_differ_by_one_at_most() -> None:
    samples = noise(3000, 3000)
    shades = window_table(samples, WINDOW)[samples].astype(int)
    assert abs(shades - by_numpy(samples)).max() <= 1


@pytest.mark.parametrize("resample", range(6))
@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((1537, 1100), (224, 224)),
        ((1600, 2000), (56, 60)),
        ((40, 3000), (56, 56)),
        ((1, 1), (9, 7)),
    ],
)
def test_bands_together_are_what_pillow_makes_of_the_whole(
    resample: int, shape: tuple[int, int], size: tuple[int, int]
) -> None:
    samples = noise(*shape)
    table = window_table(noise(100, 100), WINDOW)
    whole = Image.fromarray(table[samples]).resize(size[::-1], Image.Resampling(resample))
    found = Shrinker(size, resample, hands=2).shrunk(samples, table)
    assert numpy.array_equal(found, numpy.asarray(whole))


def example(name: str) -> bytes:
    path = get_testdata_file(name)
    assert isinstance(path, str)
    return Path(path).read_bytes()


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm", "MR_small_implicit.dcm"])
def test_values_are_read_where_they_lie(name: str) -> None:
    body = example(name)
    found = dicom.stored(memoryview(body), MANY)
    assert found is not None
    assert numpy.array_equal(found.samples, pydicom.dcmread(io.BytesIO(body)).pixel_array)
    assert not found.samples.flags.owndata


@pytest.mark.parametrize(
    "name", ["JPEG2000.dcm", "MR_small_bigendian.dcm", "SC_rgb_small_odd.dcm", "MR_truncated.dcm"]
)
def test_what_does_not_lie_there_as_it_is_is_decoded(name: str) -> None:
    assert dicom.stored(memoryview(example(name)), MANY) is None


def test_a_file_that_does_not_say_how_its_values_are_signed_is_left_to_its_decoder() -> None:
    dataset = pydicom.dcmread(io.BytesIO(example("CT_small.dcm")))
    del dataset.PixelRepresentation
    stream = io.BytesIO()
    dataset.save_as(stream)
    assert dicom.stored(memoryview(stream.getvalue()), MANY) is None


def test_what_is_no_dicom_file_is_not_looked_at() -> None:
    assert dicom.stored(memoryview(b"GIF89a"), MANY) is None
