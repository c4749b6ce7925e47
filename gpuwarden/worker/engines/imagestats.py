# SPDX-License-Identifier: Apache-2.0
"""The engine that answers with figures of an image: DICOM, PNG or JPEG, no model needed.

Options: ``max_pixels`` (columns x rows that are still decoded, where fewer than the worker's
``max_pixels``). Needs numpy, pydicom and Pillow.
"""

import hashlib
import importlib
import sys
import warnings
from typing import Any, Dict, List, Tuple

from gpuwarden.worker.engine import (
    BadImageError,
    BadRequestError,
    Context,
    Engine,
    Request,
)
from gpuwarden.worker.engines import dicom, raster
from gpuwarden.worker.engines.pictures import Picture
from gpuwarden.worker.engines.statistics import statistics

LIBRARIES = (
    ("numpy", "python3-numpy", "numpy"),
    ("pydicom", "python3-pydicom", "pydicom"),
    ("PIL", "python3-pil", "pillow"),
)
WANTED = "send one DICOM file, PNG or JPEG"

Decoded = Tuple[Picture, str]


class ImageStatistics(Engine):
    """Decodes in the CPU processes, counts where the model would run."""

    batch_mixed = True  # each image is counted by itself

    def load(self, context: Context) -> None:
        """Check that the libraries are there. Raises RuntimeError naming those that aren't."""
        _check_libraries()

    def prepare(self) -> None:
        """Import the decoders before the first request and bound what they may allocate."""
        _check_libraries()
        from PIL import Image  # noqa: PLC0415 - only this engine needs it

        Image.MAX_IMAGE_PIXELS = self._max_pixels()

    def preprocess(self, request: Request) -> Decoded:
        """Stored values and their SHA-256. Raises BadImageError, BadRequestError."""
        if request.messages and len(request.images) != 1:
            count = len(request.images)
            raise BadRequestError(f"{count} images; this model wants one in all", "messages")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom quotes what it reads
            picture = decode(request.body, request.media_type, self._max_pixels())
        return picture, _digest(picture)

    def predict(self, batch: List[Decoded]) -> List[Dict[str, Any]]:
        """The figures."""
        return [_describe(picture, digest) for picture, digest in batch]

    def _max_pixels(self) -> int:
        return int(self.context.options.get("max_pixels", self.context.max_pixels))


def decode(body: memoryview, media_type: str, max_pixels: int) -> Picture:
    """The picture in a body; its own bytes decide what it is. Raises BadImageError."""
    if len(body) == 0:
        raise BadImageError(f"the image is empty (0 bytes); {WANTED}")
    if dicom.is_dicom(body):
        return dicom.decode(body, max_pixels)
    name = raster.format_of(body)
    if name:
        return raster.decode(body, name, max_pixels)
    if media_type == dicom.MEDIA_TYPE:
        raise BadImageError(
            "announced as application/dicom, but the bytes from 128 on are not 'DICM'; "
            "send a DICOM part 10 file with its preamble"
        )
    raise BadImageError(f"{len(body)} bytes that are neither DICOM, PNG nor JPEG; {WANTED}")


def _describe(picture: Picture, digest: str) -> Dict[str, Any]:
    samples = picture.samples
    return {
        "media_type": picture.media_type,
        "width": int(samples.shape[1]),
        "height": int(samples.shape[0]),
        "samples_per_pixel": int(samples.shape[2]) if samples.ndim == 3 else 1,
        "bit_depth": picture.bit_depth,
        "signed": samples.dtype.kind == "i",
        "photometric_interpretation": picture.photometric_interpretation,
        **statistics(samples),
        "pixels_sha256": digest,
    }


def _digest(picture: Picture) -> str:
    """SHA-256 of the stored values, row by row, little endian."""
    import numpy  # noqa: PLC0415 - only this engine needs it

    ordered = picture.samples.astype(picture.samples.dtype.newbyteorder("<"), copy=False)
    return hashlib.sha256(numpy.ascontiguousarray(ordered).data).hexdigest()


def _check_libraries() -> None:
    missing = []
    for module, debian, pypi in LIBRARIES:
        try:
            importlib.import_module(module)
        except ImportError:
            missing.append((debian, pypi))
    if missing:
        raise RuntimeError(
            f"{sys.executable} lacks {', '.join(pypi for _, pypi in missing)}: "
            f"apt install {' '.join(debian for debian, _ in missing)}, "
            "or choose another interpreter in [workers] python"
        )
