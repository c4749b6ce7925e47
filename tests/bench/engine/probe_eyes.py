"""A picture's way through the eyes on a card, part by part: ``probe.py`` calls it.

Which attention kernel at which size of head, which product at which width, a whole look by each of
the ways, the kernels that a look consists of; and what decode steps and looks cost each other when
they run beside each other on streams of their own. Each part by itself: one that fails says so.
"""

import itertools
import json
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from tests.bench.engine.sizes import Sizes

BESIDE_SECONDS = 1.5
BATCHES = (1, 2)


def main(built: Any, sizes: Sizes, out: Path, until: float) -> None:
    """All parts, as long as there is time; what was found so far is always in the file."""
    found: dict[str, Any] = {}
    for name, part in (
        ("a look", partial(_looks, built)),
        ("attention of a layer, ms", partial(_attentions, built, sizes)),
        ("products of a layer, ms", partial(_products, built, sizes)),
        ("beside steps", partial(_beside, built)),
    ):
        if time.monotonic() > until:
            break
        found[name] = rows = {}
        try:
            for key, value in part():
                rows[key] = value
                print(f"{name}: {key}: {value}", flush=True)
                out.write_text(json.dumps(found, indent=1))
                if time.monotonic() > until:
                    break
        except Exception:  # noqa: BLE001 - the next part may work
            rows["error"] = traceback.format_exc()[-2000:]
            print(rows["error"], flush=True)
    out.write_text(json.dumps(found, indent=1))


def _milliseconds(run: Callable[[], Any], repeats: int = 20) -> float:
    """On the card, of runs that were captured together: no host between them."""
    import torch  # noqa: PLC0415

    if not torch.cuda.is_available():
        began = time.perf_counter()
        run()
        return round(1000 * (time.perf_counter() - began), 4)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(repeats):
            run()
    graph.replay()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    graph.replay()
    end.record()
    end.synchronize()
    return round(float(begin.elapsed_time(end)) / repeats, 4)


def _guarded(run: Callable[[], Any], repeats: int = 20) -> Any:
    try:
        return _milliseconds(run, repeats)
    except Exception as error:  # noqa: BLE001 - the next one may work
        return f"{type(error).__name__}: {str(error)[:200]}"


def _looks(built: Any) -> Iterator[tuple[str, Any]]:
    """A whole look as it is and by each way of attention."""
    import torch  # noqa: PLC0415

    from gpuwarden.worker.engines.transformers import attention  # noqa: PLC0415
    from gpuwarden.worker.engines.transformers.eyesight import (  # noqa: PLC0415
        WAYS,
        register,
        show_by,
    )

    eyes = built.prefill.eyes
    run = eyes.prepare()
    yield "as it is", _guarded(run) if not torch.cuda.is_available() else _replayed(run)
    if torch.cuda.is_available():
        from tests.bench.engine.probe import _kernels  # noqa: PLC0415

        yield "its kernels", _kernels(run)
    register()
    for way in WAYS if torch.cuda.is_available() else ():
        show_by(built.model.whole, way.name)
        yield way.name, _guarded(eyes._run, 4)
    show_by(built.model.whole, attention.SDPA)  # the library's, for whoever comes next


def _replayed(run: Callable[[], None]) -> float:
    from gpuwarden.worker.engines.transformers.graphs import milliseconds  # noqa: PLC0415

    return round(sorted(milliseconds(run) for _ in range(7))[3], 3)


def _attentions(built: Any, sizes: Sizes) -> Iterator[tuple[str, Any]]:
    import torch  # noqa: PLC0415
    from torch.nn.attention import SDPBackend, sdpa_kernel  # noqa: PLC0415

    from gpuwarden.worker.engines.transformers.eyesight import WAYS, Way  # noqa: PLC0415

    vision = sizes.vision
    heads, size = vision["num_attention_heads"], 0
    size = vision["hidden_size"] // heads
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    device, dtype = built.model.device, built.model.dtype

    def inputs(wide: int) -> Any:
        shape = (1, patches, heads, wide)
        made = [torch.randn(shape, device=device, dtype=dtype) for _ in range(3)]
        return [one.transpose(1, 2) for one in made]

    plain = inputs(size)
    attend = torch.nn.functional.scaled_dot_product_attention
    yield "the library's", _guarded(partial(attend, *plain))
    exact = attend(*(one.float() for one in plain))
    for backend in ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION"):
        with suppress(AttributeError), sdpa_kernel(getattr(SDPBackend, backend)):
            yield backend, _guarded(partial(attend, *plain))
    for wide in (64, 80, 96, 128):
        for kernel in ("cudnn", "flash"):
            yield (
                f"{kernel} alone, heads of {wide}",
                _guarded(partial(Way(kernel).attend, *inputs(wide))),
            )
    for way in WAYS if device.type == "cuda" else ():
        with suppress(RuntimeError):
            error = (way.attend(*plain).float() - exact).abs().max()
            yield f"{way.name}, with filling up", _guarded(partial(way.attend, *plain))
            yield f"{way.name}, furthest from float32", float(error)


def _products(built: Any, sizes: Sizes) -> Iterator[tuple[str, Any]]:
    import torch  # noqa: PLC0415

    vision = sizes.vision
    hidden, inner = vision["hidden_size"], vision["intermediate_size"]
    patches = (vision["image_size"] // vision["patch_size"]) ** 2
    device, dtype = built.model.device, built.model.dtype
    padded = [-(-inner // step) * step for step in (64, 128, 256, 512)]
    pairs = [(hidden, hidden), (hidden, 3 * hidden)]
    pairs += [(hidden, wide) for wide in (inner, *padded)]
    pairs += [(wide, hidden) for wide in (inner, *padded)]
    for batch, (inputs, outputs) in itertools.product(BATCHES, pairs):
        weight = torch.randn((outputs, inputs), device=device, dtype=dtype)
        bias = torch.randn(outputs, device=device, dtype=dtype)
        values = torch.randn((batch * patches, inputs), device=device, dtype=dtype)
        taken = _guarded(partial(torch.nn.functional.linear, values, weight, bias))
        work = 2e-9 * batch * patches * inputs * outputs
        rate = round(work / taken) if isinstance(taken, float) and taken else 0
        yield f"{batch} pictures, {inputs} to {outputs}", f"{taken} ms, {rate} TFLOP/s"


def _beside(built: Any) -> Iterator[tuple[str, Any]]:
    """Steps alone; looks alone; steps in front while looks go on behind, each on its own stream."""
    import torch  # noqa: PLC0415

    if not torch.cuda.is_available():
        return
    decoder, eyes = built.decoder, built.prefill.eyes
    rows, length = decoder.shapes.slots[-1], decoder.shapes.lengths[0]
    step = decoder.run_of(rows, length)
    low, high = torch.cuda.Stream(priority=0), torch.cuda.Stream(priority=-5)
    torch.cuda.synchronize()
    low.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(low):
        eyes._run()
    torch.cuda.synchronize()
    look = torch.cuda.CUDAGraph()
    with torch.cuda.graph(look, stream=low):
        eyes._run()
    yield "step alone, ms", _rates(high, step, None, None)[0]
    yield "look alone, ms", _rates(low, look.replay, None, None)[0]
    yield "step in front, look behind, ms each", _rates(high, step, low, look.replay)
    yield (
        "both on streams of one priority, ms each",
        _rates(torch.cuda.Stream(), step, low, look.replay),
    )


def _rates(first: Any, run: Any, second: Any, other: Any) -> tuple[float, float]:
    """Milliseconds per run of each, two of each sent ahead at most, for a while."""
    import torch  # noqa: PLC0415

    lanes: list[Any] = [(first, run, [])] + ([(second, other, [])] if second is not None else [])
    counts = [0, 0]
    torch.cuda.synchronize()
    began = time.perf_counter()
    while time.perf_counter() - began < BESIDE_SECONDS:
        for number, (stream, action, sent) in enumerate(lanes):
            while sent and sent[0].query():
                sent.pop(0)
            if len(sent) >= 2:
                continue
            with torch.cuda.stream(stream):
                action()
                event = torch.cuda.Event()
                event.record()
            sent.append(event)
            counts[number] += 1
    torch.cuda.synchronize()
    spent = 1000 * (time.perf_counter() - began)
    one, two = (round(spent / max(count, 1), 3) for count in counts)
    return one, two
