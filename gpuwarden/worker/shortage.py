# SPDX-License-Identifier: Apache-2.0
"""Out of memory: how it is told from other failures, and what gives memory back.

It costs no worker its life. Whoever ran is tried again with fewer beside it, at last alone after
the caches were dropped; only who doesn't fit even then gets an error.
"""

import gc
import logging
import sys
from typing import Any

from gpuwarden.worker.engine import Engine
from gpuwarden.worker.faults import Failure, location

_log = logging.getLogger(__name__)

# Errors of libraries that have no class of their own for it, by what their text begins with or has.
MARKS = (
    "out of memory",  # "CUDA out of memory", "CUDA error: out of memory"
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "RESOURCE_EXHAUSTED",  # XLA
)

TOO_LARGE = Failure(
    "out_of_memory",
    "the model ran out of memory with this request alone: send a smaller image or a shorter "
    "question, or ask for fewer tokens",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an engine failed for want of memory, the card's or the worker's own.

    By class names: torch.OutOfMemoryError is that of an interpreter that may not have torch.
    """
    if isinstance(error, MemoryError):
        return True
    if any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(mark in str(error) for mark in MARKS)


def drop_caches(engine: Engine) -> None:
    """Give back what is held for speed alone (GPU thread, between two batches or steps)."""
    try:
        engine.drop_caches()
        gc.collect()  # a traceback in a cycle would hold a batch's tensors
        torch: Any = torch_in_use()
        if torch is not None:
            torch.cuda.empty_cache()
    except Exception as error:  # noqa: BLE001 - an integrator's code, or a driver without memory
        _log.warning("caches could not be dropped: %s", location(error))


def torch_in_use() -> Any:
    """The module where it has a context on the card; None where it has none, or isn't there."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    return torch if cuda is not None and cuda.is_initialized() else None
