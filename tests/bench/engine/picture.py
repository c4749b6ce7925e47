# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.bench.engine.picture``: what making a picture of a DICOM image takes of a CPU.

No model and no card. Beside the plain way, which pydicom, numpy and Pillow go over the whole image.
"""

import io
import os
import time
from collections.abc import Callable
from typing import Any

import numpy

from gpuwarden.worker.engines import dicom as reader
from gpuwarden.worker.engines.transformers.shrinking import Shrinker
from gpuwarden.worker.engines.transformers.windowing import unsigned, window_table
from tests.bench.engine.images import dicom
from tests.bench.engine.sizes import CARD

ROUNDS = 9
WINDOW = (0.5, 99.5)
BILINEAR = 2  # of Pillow's filters: Gemma 3's


def main() -> None:
    """Measure both ways, in turn; print a table."""
    size, body = CARD.vision["image_size"], dicom(CARD.image_side, 1)
    shrinker = Shrinker((size, size), BILINEAR)
    ways: dict[str, Callable[[], Any]] = {
        "the whole image": lambda: plainly(body, size),
        "where it lies, in bands": lambda: in_bands(body, shrinker),
    }
    took = measured(ways)
    print(f"CPUs: {len(os.sched_getaffinity(0))}; {CARD.image_side} pixels square, 16 bits each.\n")
    print("| way | ms | CPU, ms | a second and CPU |\n|---|---|---|---|")
    for name, (wall, cpu) in took.items():
        print(f"| {name} | {1000 * wall:.1f} | {1000 * cpu:.1f} | {1 / cpu:.1f} |")


def in_bands(body: bytes, shrinker: Shrinker) -> Any:
    """As the engine does."""
    picture = reader.stored(memoryview(body), CARD.image_side**2)
    if picture is None:
        raise RuntimeError("the image's values don't lie in it as they are")
    table = window_table(picture.samples, WINDOW, picture.bit_depth)
    return shrinker.shrunk(unsigned(picture.samples), table)


def plainly(body: bytes, size: int) -> Any:
    """As a page's script does; the window of the same values."""
    import pydicom  # noqa: PLC0415
    from PIL import Image  # noqa: PLC0415

    values = pydicom.dcmread(io.BytesIO(body)).pixel_array
    step = max(1, values.shape[0] // 1024)
    low, high = (float(one) for one in numpy.percentile(values[::step, ::step], WINDOW))
    shades = ((values.astype("f4") - low) * (255 / (high - low))).clip(0, 255).round().astype("u1")
    return numpy.asarray(Image.fromarray(shades).resize((size, size), Image.Resampling.BILINEAR))


def measured(ways: dict[str, Callable[[], Any]]) -> dict[str, tuple[float, float]]:
    """Seconds by the clock and of all CPUs: the middle of some rounds."""
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            began, cpu = time.perf_counter(), time.process_time()
            way()
            seen[name].append((time.perf_counter() - began, time.process_time() - cpu))
    return {name: sorted(rows)[ROUNDS // 2] for name, rows in seen.items()}


if __name__ == "__main__":
    main()
