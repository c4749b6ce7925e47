# SPDX-License-Identifier: Apache-2.0
"""Which way a product of one row takes is measured at load: torch's own, or a shape of the kernel.

All weights of one size are run one after the other, as a step does, so that none is in the card's
cache still.
"""

import logging
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch

from gpuwarden.worker.brokencard import breaks_card
from gpuwarden.worker.engines.transformers.merging import Product
from gpuwarden.worker.engines.transformers.onerow import SHAPES, Shape
from gpuwarden.worker.faults import location

_log = logging.getLogger(__name__)
REPLAYS = 5
GAIN_AT_LEAST = 0.03  # of torch's time: less is noise
ERROR_AT_MOST = 0.02  # of the largest value: bfloat16 rounds to 0.4 %
BYTES_AT_LEAST = 200 << 20  # in one go: more than a card's cache holds

Times = Dict[Optional[Shape], float]


def choose_shapes(products: Sequence[Product]) -> None:
    """Set each product's shape to what is fastest on this card. It takes some seconds."""
    # One for all: what libraries keep for a stream they keep once.
    side = torch.cuda.Stream()
    by_size: Dict[Tuple[int, ...], List[Product]] = {}
    for one in products:
        by_size.setdefault(tuple(one.weight.shape), []).append(one)
    for size, several in by_size.items():
        try:
            times = _times(several, side)
        except Exception as error:  # whatever a compiler or a driver raises: torch's own is there
            if breaks_card(error):
                raise
            _log.warning("products of one row stay torch's own: %s", location(error))
            times = {}
        shape = best(times)
        for one in several:
            one.shape = shape
        told = {str(key): round(1000 * value / len(several), 2) for key, value in times.items()}
        torch._C._cuda_clearCublasWorkspaces()
        _log.info("one row by a weight of %s: %s, by microseconds %s", size, shape, told)


def best(times: Times) -> Optional[Shape]:
    """The fastest; None, torch's own, where nothing is faster by something. Pure.

    :param times: of each; in any unit.
    """
    if None not in times:
        return None
    shape = min(times, key=lambda one: times[one])
    return shape if times[shape] < (1 - GAIN_AT_LEAST) * times[None] else None


def _times(products: Sequence[Product], side: Any) -> Times:
    weight = products[0].weight
    row = torch.randn((1, 1, weight.shape[1]), device=weight.device).to(weight.dtype)
    rounds = -(-BYTES_AT_LEAST // (weight.nbytes * len(products)))
    times: Times = {}
    expected = products[0](row)
    for shape in (None, *SHAPES):
        for one in products:
            one.shape = shape
        error = (products[0](row) - expected).abs().max() / expected.abs().max()
        if float(error) <= ERROR_AT_MOST:
            times[shape] = _milliseconds(partial(_run, products, row), rounds, side) / rounds
    return times


def _run(products: Sequence[Product], row: torch.Tensor) -> None:
    for one in products:
        one(row)


def _milliseconds(run: Callable[[], None], rounds: int, side: Any) -> float:
    """Of so many rounds, captured: launching them takes longer than they do."""
    side.wait_stream(torch.cuda.current_stream())
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
        for _ in range(rounds):
            run()
    graph.replay()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(REPLAYS):
        graph.replay()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / REPLAYS
