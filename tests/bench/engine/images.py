# SPDX-License-Identifier: Apache-2.0
"""Images as a modality sends them: DICOM, grey, 12 bits in 16, uncompressed."""

import io
from pathlib import Path

import numpy


def dicom(side: int, seed: int) -> bytes:
    """A square of smooth shades with noise."""
    import pydicom  # noqa: PLC0415
    from pydicom.dataset import FileDataset, FileMetaDataset  # noqa: PLC0415

    random = numpy.random.default_rng(seed)
    ramp = numpy.linspace(0, 3000, side, dtype="f4")
    noise = random.integers(0, 1000, (side, side), dtype="u2")
    values = ((ramp[:, None] + ramp[None, :]) / 2).astype("u2") + noise
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.UID("1.2.840.10008.5.1.4.1.1.1.1")
    meta.MediaStorageSOPInstanceUID = pydicom.uid.UID(f"2.25.{seed + 1}")
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.Rows = dataset.Columns = side
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.PixelData = values.astype("<u2").tobytes()
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def save_images(folder: Path, sides: list[int], each: int) -> list[str]:
    """So many of each size; their files."""
    files = []
    for side in sides:
        for number in range(each):
            file = folder / f"{side}-{number}.dcm"
            file.write_bytes(dicom(side, 1000 * side + number))
            files.append(str(file))
    return files
