"""``python -m tests.bench.engine.naive FOLDER IMAGE COUNT tiny|card``: what a page's script does.

One process: preprocessing, then ``generate``, batch 1. Prints a JSON object.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy

from tests.bench.engine.questions import question_of
from tests.bench.engine.sizes import CARD, TINY, Sizes


def main(folder: str, image: str, count: int, sizes: Sizes) -> dict[str, Any]:
    """The times of ``count`` requests, after one that isn't counted."""
    import torch  # noqa: PLC0415
    from transformers import AutoProcessor, Gemma3ForConditionalGeneration  # noqa: PLC0415

    began = time.monotonic()
    model = Gemma3ForConditionalGeneration.from_pretrained(
        folder, dtype=getattr(torch, sizes.dtype), local_files_only=True
    ).to(sizes.device)
    processor = AutoProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
    loaded = time.monotonic() - began
    question = question_of(folder, sizes)
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}
    ]
    prompt = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    seconds, prepared, prompts = [], [], 0
    for _ in range(count + 1):
        start = time.monotonic()
        picture = _picture(image)
        inputs = processor(
            text=[prompt], images=[[picture]], return_tensors="pt", add_special_tokens=False
        ).to(sizes.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
        prepared.append(time.monotonic() - start)
        prompts = int(inputs["input_ids"].shape[1])
        with torch.no_grad():
            tokens = model.generate(
                **inputs,
                min_new_tokens=sizes.answer_tokens,
                max_new_tokens=sizes.answer_tokens,
                do_sample=False,
            )
        tokens.tolist()
        seconds.append(time.monotonic() - start)
    timed = sorted(seconds[1:])
    return {
        "load_seconds": loaded,
        "p50_seconds": timed[len(timed) // 2],
        "requests_per_second": len(timed) / sum(timed),
        "prepare_seconds": sorted(prepared[1:])[len(timed) // 2],
        "prompt_tokens": prompts,
        "milliseconds_per_step": 1000
        * (timed[len(timed) // 2] - sorted(prepared[1:])[len(timed) // 2])
        / sizes.answer_tokens,
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
    print(json.dumps(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), chosen)), flush=True)
