# SPDX-License-Identifier: Apache-2.0
"""``python -m tests.bench.engine.probe FOLDER tiny|card OUT``: the engine's parts alone, no HTTP.

Each variant's milliseconds per step, prompt group and picture, and the kernels that take longest.
"""

import gc
import json
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from gpuwarden.worker.engines.transformers.options import read_options
from tests.bench.engine.sizes import CARD, TINY, Sizes

VARIANTS = (
    {"compile": "none", "attn_implementation": "sdpa"},
    {"compile": "all", "attn_implementation": "sdpa"},
    {"compile": "all", "attn_implementation": "eager"},
)
REPEATS = 20


def main(folder: str, sizes: Sizes, out: Path, until: float) -> None:
    """All variants, as long as there is time; the results so far are always in the file."""
    results: list[dict[str, Any]] = []
    for variant in VARIANTS:
        if time.monotonic() > until:
            break
        row: dict[str, Any] = dict(variant)
        results.append(row)
        try:
            _measure(folder, sizes, row, variant)
        except Exception:  # noqa: BLE001 - the next variant may work
            row["error"] = traceback.format_exc()[-3000:]
        print(json.dumps(row, indent=1), flush=True)
        out.write_text(json.dumps(results, indent=1))
        _free(sizes)


def _measure(folder: str, sizes: Sizes, row: dict[str, Any], variant: dict[str, Any]) -> None:
    import torch  # noqa: PLC0415

    from gpuwarden.worker.engines.transformers.building import build  # noqa: PLC0415

    options = read_options(
        {"path": folder, "cache_tokens": sizes.cache_tokens, "device": sizes.device, **variant}
    )
    card = sizes.device == "cuda"
    began = time.monotonic()
    built = build(options, sizes.slots, lambda pieces: None)
    row["load_seconds"] = round(time.monotonic() - began, 2)
    decoder, prefill = built.decoder, built.prefill
    began = time.monotonic()
    if card:
        decoder.prepare()
        torch.cuda.synchronize()
    row["prepare_steps_seconds"] = round(time.monotonic() - began, 2)
    began = time.monotonic()
    if card:
        prefill.prepare()
        torch.cuda.synchronize()
    row["prepare_prompts_seconds"] = round(time.monotonic() - began, 2)
    decoder.set_live([True] * sizes.slots)
    steps = row["step_ms"] = {}
    for rows in decoder.shapes.slots:
        for length in decoder.shapes.lengths:
            action = partial(_step, decoder, rows, length)
            steps[f"{rows}x{length}"] = _milliseconds(action, card)
    prompts = row["prompts_ms"] = {}
    for group in decoder.shapes.groups:
        for with_picture in (False, True):
            members = _prompts(sizes, group, with_picture)
            name = f"{group}x{len(members[0].tokens)}" + ("+picture" if with_picture else "")
            prompts[name] = _milliseconds(partial(prefill.take_in, members), card)
    row["host_ms"] = _host_side(built, sizes)
    if card:
        decoder.forget_all()  # the steps above have left their rows at the cache's end
        row["between_steps"] = _between_steps(prefill)
        row["memory"] = {
            "reserved": torch.cuda.memory_reserved(),
            "peak_allocated": torch.cuda.max_memory_allocated(),
        }
        row["kernels of a step of 1"] = _kernels(partial(_step, decoder, 1, 512))
        row["kernels of a step of 32"] = _kernels(partial(_step, decoder, 32, 512))
        row["kernels of 4 prompts"] = _kernels(partial(prefill.take_in, members))


def _between_steps(prefill: Any) -> dict[str, Any]:
    """What the engine itself measures at load: a step, a picture, each group of prompts."""
    found = prefill.durations()
    prompts = {f"{group}x{tokens}": round(ms, 2) for (group, tokens), ms in found.prompts.items()}
    return {"step": round(found.step, 2), "look": round(found.look, 2), "prompts": prompts}


def _host_side(built: Any, sizes: Sizes) -> dict[str, float]:
    """What Python takes between two steps, and the collector's rounds."""
    from gpuwarden.worker.engines.transformers.processing import load_processor  # noqa: PLC0415
    from gpuwarden.worker.pauses import settle_memory  # noqa: PLC0415

    decode = load_processor(built.options, built.model.folder).decode
    tokens = [[50 + number, 51, 52] for number in range(2 * sizes.slots)]
    member = _prompts(sizes, 1, True)
    found = {
        "send a step": _host_milliseconds(
            partial(_step, built.decoder, sizes.slots, sizes.cache_tokens)
        ),
        "send a picture": _host_milliseconds(partial(built.prefill.look, member[0].pictures[0], 0)),
        "send a prompt": _host_milliseconds(partial(built.prefill.take_in_seen, member)),
        "decode a step's tokens": _host_milliseconds(partial(decode, tokens)),
        "collect": _host_milliseconds(gc.collect, 3),
    }
    settle_memory()
    found["collect what came since loading"] = _host_milliseconds(gc.collect, 3)
    gc.unfreeze()
    return found


def _host_milliseconds(action: Callable[[], Any], repeats: int = 20) -> float:
    """The longest but one: until the host may go on, whatever the card still does."""
    import torch  # noqa: PLC0415

    times = []
    for _ in range(repeats):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        began = time.perf_counter()
        action()
        times.append(1000 * (time.perf_counter() - began))
    return round(sorted(times)[-2], 3)


def _free(sizes: Sizes) -> None:
    """Nothing of a variant stays on the card."""
    import torch  # noqa: PLC0415

    gc.collect()
    if sizes.device == "cuda":
        torch.cuda.empty_cache()
    torch._dynamo.reset()


def _prompts(sizes: Sizes, group: int, with_picture: bool) -> list[Any]:
    import torch  # noqa: PLC0415

    from gpuwarden.worker.engines.transformers.prefill import Prompt  # noqa: PLC0415

    side = sizes.vision["image_size"]
    picture = torch.zeros((1, side, side, 1), dtype=torch.uint8) if with_picture else None
    image = [7] * sizes.tokens_per_image if with_picture else []
    tokens = [2, *image, *[50] * (sizes.prompt_tokens - len(image) - 1)]
    return [Prompt(place, tokens, picture, (0.0, 0, 1.0, 0, 0)) for place in range(group)]


def _step(decoder: Any, rows: int, length: int) -> None:
    decoder.positions.fill_(length // 2)
    decoder.step(rows, length, draws=False)


def _milliseconds(action: Callable[[], None], card: bool) -> float:
    import torch  # noqa: PLC0415

    times = []
    for _ in range(3):
        action()
    for _ in range(REPEATS if card else 2):
        if card:
            torch.cuda.synchronize()
        began = time.perf_counter()
        action()
        if card:
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - began))
    return round(sorted(times)[len(times) // 2], 3)


def _kernels(action: Callable[[], None]) -> list[str]:
    import torch  # noqa: PLC0415
    from torch.profiler import ProfilerActivity, profile  # noqa: PLC0415

    action()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        action()
        torch.cuda.synchronize()
    rows = sorted(seen.key_averages(), key=lambda one: -one.device_time_total)[:14]
    total = sum(one.device_time_total for one in seen.key_averages())
    count = sum(one.count for one in seen.key_averages())
    lines = [f"all: {total / 1000:.3f} ms in {count} kernels"]
    return lines + [
        f"{one.device_time_total / 1000:.3f} ms  {one.count} x  {one.key[:90]}" for one in rows
    ]


if __name__ == "__main__":
    chosen = TINY if sys.argv[2] == "tiny" else CARD
    main(sys.argv[1], chosen, Path(sys.argv[3]), time.monotonic() + float(sys.argv[4]))
