"""From a DICOM, PNG or JPEG file to the 8-bit picture that the model's eyes are made for."""

from typing import Any, Tuple

from gpuwarden.worker.engine import BadImageError, Image
from gpuwarden.worker.engines.imagestats import decode
from gpuwarden.worker.engines.pictures import Picture
from gpuwarden.worker.engines.transformers.options import EngineOptions
from gpuwarden.worker.engines.transformers.processing import PIXEL_LEVELS, Processor

SAMPLES_WANTED = 1 << 21  # of an image for its window: more change it by less than a grey level
LINES_AT_ONCE = 16  # of 4096 values, 8 bytes each as indices: 512 KiB
DARK_IS_HIGH = "MONOCHROME1"  # of DICOM: low values are shown bright


def picture_of(image: Image, processor: Processor, options: EngineOptions, max_pixels: int) -> Any:
    """[height, width, 1 or 3] of 8 bits, in the size that the eyes want. Raises BadImageError."""
    from PIL import Image as Pillow  # noqa: PLC0415 - only this engine needs it

    picture = decode(image.data, image.media_type, max_pixels)
    samples = _in_8_bits(picture, options.window_percentiles)
    height, width = processor.picture_size
    shown = Pillow.fromarray(samples)
    shown = shown.resize((width, height), resample=Pillow.Resampling(processor.resample))
    import numpy  # noqa: PLC0415 - only this engine needs it

    found = numpy.asarray(shown)
    return found[:, :, None] if found.ndim == 2 else found


def _in_8_bits(picture: Picture, percentiles: Tuple[float, float]) -> Any:
    """Grey [height, width] or colour [height, width, 3], of 8 bits."""
    samples = picture.samples
    if samples.ndim == 3:
        return _colour(samples)
    if samples.dtype.itemsize == 1 and picture.media_type != "application/dicom":
        return samples
    grey = windowed(samples, percentiles)
    if picture.photometric_interpretation == DARK_IS_HIGH:
        return PIXEL_LEVELS - grey
    return grey


def windowed(samples: Any, percentiles: Tuple[float, float]) -> Any:
    """Values of up to 16 bits as 8 bits: what lies below and above the percentiles is cut off."""
    import numpy  # noqa: PLC0415 - only this engine needs it

    step = max(1, int((samples.size / SAMPLES_WANTED) ** 0.5))
    seen = samples[::step, ::step]
    low, high = (float(one) for one in numpy.percentile(seen, percentiles))
    if high <= low:  # an image of one value
        low, high = float(seen.min()), float(seen.max())
    if high <= low:
        return numpy.zeros(samples.shape, dtype="u1")
    wide = samples
    if samples.dtype.itemsize == 1:
        wide = samples.astype("i2" if samples.dtype.kind == "i" else "u2")
    levels = numpy.arange(1 << 16, dtype="u2").view(wide.dtype.newbyteorder("=")).astype("f4")
    table = ((levels - low) * (PIXEL_LEVELS / (high - low))).clip(0, PIXEL_LEVELS).round()
    return _looked_up(table.astype("u1"), wide.view(wide.dtype.str.replace("i", "u")))


def _looked_up(table: Any, values: Any) -> Any:
    """Each value's entry, some lines at a time: all indices at once don't fit a CPU's cache."""
    import numpy  # noqa: PLC0415 - only this engine needs it

    found = numpy.empty(values.shape, dtype=table.dtype)
    for line in range(0, values.shape[0], LINES_AT_ONCE):
        part = slice(line, line + LINES_AT_ONCE)
        table.take(values[part], out=found[part], mode="clip")  # else take() copies what it gives
    return found


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
