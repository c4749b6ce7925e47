# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.bench.engine.naive FOLDER IMAGE COUNT tiny|card SECONDS``: a page's script.

One process: preprocessing, then ``generate``, batch 1. Prints a JSON object after each request:
what is known so far. It ends when the next request would take it beyond its time.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy

from tests.bench.engine.questions import question_of
from tests.bench.engine.sizes import CARD, TINY, Sizes


def main(folder: str, image: str, count: int, sizes: Sizes, until: float) -> None:
    """The times of ``count`` requests, after one that isn't counted."""
    import torch  # noqa: PLC0415
    from transformers import AutoProcessor, Gemma3ForConditionalGeneration  # noqa: PLC0415

    began = time.monotonic()
    model = Gemma3ForConditionalGeneration.from_pretrained(
        folder, dtype=getattr(torch, sizes.dtype), local_files_only=True
    ).to(sizes.device)
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
    found: dict[str, Any] = {"load_seconds": time.monotonic() - began, "wanted": count}
    question = question_of(folder, sizes)
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
    ]
    prompt = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    seconds: list[float] = []
    prepared: list[float] = []
    while len(seconds) < count + 1 and time.monotonic() + max(seconds[1:], default=0) < until:
        start = time.monotonic()
        inputs = processor(
            text=[prompt],
            images=[[_picture(image)]],
            return_tensors="pt",
            add_special_tokens=False,
        ).to(sizes.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
        prepared.append(time.monotonic() - start)
        found["prompt_tokens"] = int(inputs["input_ids"].shape[1])
        with torch.no_grad():
            tokens = model.generate(
                **inputs,
                min_new_tokens=sizes.answer_tokens,
                max_new_tokens=sizes.answer_tokens,
                do_sample=False,
            )
        tokens.tolist()
        seconds.append(time.monotonic() - start)
        print(json.dumps(found | figures_of(seconds, prepared, sizes.answer_tokens)), flush=True)


def figures_of(seconds: list[float], prepared: list[float], tokens: int) -> dict[str, Any]:
    """What the requests took, but for the first, which also loads libraries' kernels. Pure.

    :param prepared: what of it went by before ``generate``.
    """
    timed, before = sorted(seconds[1:]), sorted(prepared[1:])
    if not timed:
        return {"first_seconds": seconds[0], "requests": 0}
    middle, prepare = timed[len(timed) // 2], before[len(before) // 2]
    return {
        "first_seconds": seconds[0],
        "requests": len(timed),
        "p50_seconds": middle,
        "requests_per_second": len(timed) / sum(timed),
        "prepare_seconds": prepare,
        "milliseconds_per_step": 1000 * (middle - prepare) / tokens,
    }


def _picture(file: str) -> Any:
    import pydicom  # noqa: PLC0415

    values = pydicom.dcmread(file).pixel_array.astype("f4")
    low, high = numpy.percentile(values[::4, ::4], (0.5, 99.5))
    grey = ((values - low) / (high - low)).clip(0, 1) * 255
    return numpy.repeat(grey.astype("u1")[:, :, None], 3, axis=2)


if __name__ == "__main__":
    Path(sys.argv[1]).resolve(strict=True)
    chosen = TINY if sys.argv[4] == "tiny" else CARD
    ending = time.monotonic() + float(sys.argv[5])
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), chosen, ending)
