# SPDX-License-Identifier: Apache-2.0
"""From a DICOM, PNG or JPEG file to the 8-bit picture that the model's eyes are made for."""

from typing import Any, Optional

from gpuwarden.worker.engine import BadImageError, Image
from gpuwarden.worker.engines import dicom
from gpuwarden.worker.engines.imagestats import decode
from gpuwarden.worker.engines.pictures import Picture
from gpuwarden.worker.engines.transformers.options import EngineOptions
from gpuwarden.worker.engines.transformers.processing import PIXEL_LEVELS, Processor
from gpuwarden.worker.engines.transformers.shrinking import Shrinker
from gpuwarden.worker.engines.transformers.windowing import unsigned, window_table

DARK_IS_HIGH = "MONOCHROME1"  # of DICOM: low values are shown bright


class Pictures:
    """Makes pictures for one model."""

    def __init__(self, processor: Processor, options: EngineOptions, max_pixels: int) -> None:
        self._processor = processor
        self._percentiles = options.window_percentiles
        self._max_pixels = max_pixels
        self._shrinker = Shrinker(processor.picture_size, processor.resample)

    def of(self, image: Image) -> Any:
        """[height, width, 1 or 3] of 8 bits, in the size that the eyes want. Raises BadImageError.

        Nothing of it lies in the image.
        """
        stored = dicom.stored(image.data, self._max_pixels)
        if stored is not None:
            return self._shaded(stored, stored.bit_depth)
        picture = decode(image.data, image.media_type, self._max_pixels)
        if picture.samples.ndim == 3:
            return self._resized(_colour(picture.samples))
        if picture.samples.dtype.itemsize == 1 and picture.media_type != dicom.MEDIA_TYPE:
            return self._resized(picture.samples)
        return self._shaded(picture)

    def _shaded(self, picture: Picture, bits: Optional[int] = None) -> Any:
        """Grey: what lies below and above the percentiles is cut off."""
        table = window_table(picture.samples, self._percentiles, bits)
        if picture.photometric_interpretation == DARK_IS_HIGH:
            table = PIXEL_LEVELS - table
        return self._shrinker.shrunk(unsigned(picture.samples), table)[:, :, None]

    def _resized(self, samples: Any) -> Any:
        import numpy  # noqa: PLC0415 - only this engine needs it
        from PIL import Image as Pillow  # noqa: PLC0415 - only this engine needs it

        height, width = self._processor.picture_size
        shown = Pillow.fromarray(samples)
        shown = shown.resize((width, height), Pillow.Resampling(self._processor.resample))
        found = numpy.asarray(shown)
        return found[:, :, None] if found.ndim == 2 else found


def _colour(samples: Any) -> Any:
    if samples.dtype.itemsize != 1:
        raise BadImageError("colour in over 8 bits a sample can't be read; send it in 8 bits")
    if samples.shape[2] == 3:
        return samples
    import numpy  # noqa: PLC0415 - only this engine needs it
    from PIL import Image as Pillow  # noqa: PLC0415 - only this engine needs it

    if samples.shape[2] != 4:
        raise BadImageError(f"{samples.shape[2]} samples a pixel; 1, 3 and 4 can be read")
    return numpy.asarray(Pillow.fromarray(samples).convert("RGB"))
