# SPDX-License-Identifier: Apache-2.0
"""A worker's memory on a real card: what torch says of it, running out of it, and what frees it.

``python -m tests.gpu.memory`` runs the worker's own parts on the first card and prints what it
found as JSON; it ends with an assertion where something is not as promised. Needs torch and 8 GiB
of GPU memory.
"""

import asyncio
import json
import time
from typing import Any

from gpuwarden.worker.allocator import FIGURES, read_figures
from gpuwarden.worker.engine import Audience, Context, Engine
from gpuwarden.worker.engines.memoryplan import (
    CONTEXT_BYTES,
    FIRST_GRAPH_BYTES,
    GRAPH_BYTES,
)
from gpuwarden.worker.gpu import GpuThread, run_batch
from gpuwarden.worker.outputs import Answer
from gpuwarden.worker.shortage import TOO_LARGE, drop_caches

MIB = 1 << 20
LIMIT_BYTES = 4096 * MIB
SMALL_BLOCKS_BYTES = 8 * MIB
GRAPHS = 6
LAYERS, HIDDEN, INTERMEDIATE = 34, 2560, 10240  # kernels of a step, not the model's memory


class Filling(Engine):
    """Takes as many MiB of the card for an item as the item says, all of a batch at once."""

    def load(self, context: Context) -> None:
        import torch  # noqa: PLC0415 - a worker's interpreter has it, the project's has not

        self.torch: Any = torch
        free, total = torch.cuda.mem_get_info()
        self.context_bytes = total - free
        torch.cuda.set_per_process_memory_fraction(LIMIT_BYTES / total)
        self.weights = torch.ones(256 * MIB, dtype=torch.uint8, device="cuda")
        self.sizes: list[int] = []

    def predict(self, batch: list[int]) -> list[dict[str, Any]]:
        self.sizes.append(len(batch))
        held = [
            self.torch.ones(item * MIB, dtype=self.torch.uint8, device="cuda") for item in batch
        ]
        return [{"first": int(tensor[0])} for tensor in held]


async def trial(found: dict[str, Any]) -> None:
    """All of it; ``found`` has what is known so far, also where something is not as promised."""
    gpu, engine = GpuThread(), Filling()
    engine.context = Context("filling", {"memory_fraction": 0.5})
    await gpu.run(engine.load, engine.context)
    found["context_mib"] = engine.context_bytes // MIB
    await shortages_of(gpu, engine, found)
    found["graphs"] = await gpu.run(graphs_of_a_step, engine.torch)
    found["quantised"] = await gpu.run(quantised_in_a_graph, engine.torch)
    assert gpu.end(10)


async def shortages_of(gpu: GpuThread, engine: Filling, found: dict[str, Any]) -> None:
    """Batches that are too large: who is tried again, and what the allocator says of it."""
    before = await gpu.run(read_figures, engine)
    found["before"] = before
    assert set(before) == set(FIGURES), before

    shortages: list[bool] = []

    async def outcomes(*items: int) -> list[Answer]:
        engine.sizes.clear()
        shortages.clear()
        return await gpu.run(run_batch, engine, list(items), gpu.mark, Audience(), shortages.append)

    assert await outcomes(1000, 1000, 1000, 1000) == [{"first": 1}] * 4
    assert (engine.sizes, shortages) == ([4, 2, 2], [False])
    assert await outcomes(5000, 1000) == [TOO_LARGE, {"first": 1}]
    assert (engine.sizes, shortages) == ([2, 1, 1, 1], [False, True, True])
    assert await outcomes(3500) == [{"first": 1}]
    after = await gpu.run(read_figures, engine)
    found["after"] = after
    assert after["allocated_bytes"] == before["allocated_bytes"]
    assert after["num_ooms"] - before["num_ooms"] == 4

    began = time.perf_counter()
    for _ in range(100):
        await gpu.run(read_figures, engine)
    found["read_figures_ms"] = round((time.perf_counter() - began) * 10, 3)
    began = time.perf_counter()
    await gpu.run(drop_caches, engine)
    found["drop_caches_ms"] = round((time.perf_counter() - began) * 1000, 1)
    dropped = await gpu.run(read_figures, engine)
    found["dropped"] = dropped
    assert dropped["allocated_bytes"] == before["allocated_bytes"]
    # Blocks of 2 MiB that hold small tensors still are all that may be left beside.
    assert dropped["reserved_bytes"] - dropped["allocated_bytes"] <= SMALL_BLOCKS_BYTES


def graphs_of_a_step(torch: Any) -> dict[str, Any]:
    """What the card charges for captured steps, one by one, beyond what the allocator holds."""
    up = torch.randn(HIDDEN, INTERMEDIATE, device="cuda", dtype=torch.bfloat16)
    down = torch.randn(INTERMEDIATE, HIDDEN, device="cuda", dtype=torch.bfloat16)
    rows = torch.randn(32, HIDDEN, device="cuda", dtype=torch.bfloat16)

    def step() -> Any:
        hidden = rows
        for _ in range(LAYERS):
            for _ in range(4):  # as many kernels as attention and its norms have
                hidden = torch.nn.functional.rms_norm(hidden, (HIDDEN,)) * 1.01
            hidden = hidden + torch.nn.functional.gelu(hidden @ up) @ down
        return hidden

    step()
    torch.cuda.synchronize()
    beyond = []
    graphs = []  # all are kept: one that is let go would make room for the next
    for _ in range(GRAPHS):
        free, _ = torch.cuda.mem_get_info()
        reserved = torch.cuda.memory_reserved()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        graph.replay()
        torch.cuda.synchronize()
        graphs.append(graph)
        charged = free - torch.cuda.mem_get_info()[0]
        beyond.append((charged - torch.cuda.memory_reserved() + reserved) / MIB)
    return {"kernels": LAYERS * 12, "beyond_the_allocator_mib": beyond}


def quantised_in_a_graph(torch: Any) -> dict[str, float]:
    """One token into an int8 cache, and the cache read, captured and replayed."""
    from gpuwarden.worker.engines.quantised import (  # noqa: PLC0415 - it imports torch
        QuantisedRows,
        dequantised,
        quantised,
    )

    device = torch.device("cuda")
    cache = QuantisedRows.zeros(32, 4, 1024, 256, device)
    token = torch.randn(32, 4, 256, device=device, dtype=torch.bfloat16)
    row = torch.arange(32, device=device)[:, None]
    head = torch.arange(4, device=device)[None]
    place = torch.full((32, 1), 7, device=device)
    cache.put((row, head, place), token)
    cache.read(torch.bfloat16)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        cache.put((row, head, place), token)
        read = cache.read(torch.bfloat16)
    token.normal_()
    place.fill_(9)
    graph.replay()
    torch.cuda.synchronize()
    expected = dequantised(*quantised(token), torch.bfloat16)
    assert torch.equal(read[:, :, 9], expected)
    off = (expected.float() - token.float()).norm() / token.float().norm()
    return {"relative_error": round(float(off), 5), "mib": cache.bytes / MIB}


def main() -> None:
    found: dict[str, Any] = {}
    try:
        asyncio.run(trial(found))
    finally:
        print(json.dumps(found, indent=2), flush=True)
    assert found["context_mib"] * MIB <= CONTEXT_BYTES
    first, *others = found["graphs"]["beyond_the_allocator_mib"]
    assert first * MIB <= FIRST_GRAPH_BYTES + GRAPH_BYTES
    # The card charges in pieces of 2 MiB and more, so one graph may pay for several.
    assert sum(others) * MIB <= len(others) * GRAPH_BYTES


if __name__ == "__main__":
    main()
