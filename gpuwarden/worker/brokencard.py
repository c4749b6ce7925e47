# SPDX-License-Identifier: Apache-2.0
"""Errors after which nothing of a process runs on its card any more. Pure.

Such an error stays with the CUDA context: each call after it fails as the first one did. Only a new
process helps, so the worker ends at once and its requests go to others.
"""

from typing import List, Optional

from gpuwarden.worker.shortage import is_out_of_memory

KINDS = ("AcceleratorError",)  # torch's, from 2.8 on
# How errors of libraries without a class of their own for it are told, which are RuntimeErrors.
MARKS = (
    "CUDA error",
    "HIP error",
    "CUBLAS_STATUS_EXECUTION_FAILED",
    "CUDNN_STATUS_EXECUTION_FAILED",
    "NVLink error",
)
# What a call is refused with that asked for something wrong; the context is as it was
# (cuda_runtime_api.h, cudaError).
HARMLESS = (
    "invalid argument",
    "invalid configuration argument",
    "invalid device function",
    "invalid device ordinal",
    "invalid resource handle",
    "no kernel image",
    "operation not permitted",
    "operation not supported",
    "too many resources requested",
)


class BrokenCardError(RuntimeError):
    """An engine's way to say that its card, or its context, is of no use any more."""


def breaks_card(error: BaseException) -> bool:
    """Whether an engine failed because its context on the card is gone, by what it raised.

    What it was raised from counts, too: engines give errors texts of their own.
    """
    return any(_breaks(one) for one in _chain(error))


def _breaks(error: BaseException) -> bool:
    if isinstance(error, BrokenCardError):
        return True
    if is_out_of_memory(error):
        return False
    text = str(error)
    named = any(kind.__name__ in KINDS for kind in type(error).__mro__)
    told = isinstance(error, RuntimeError) and any(mark in text for mark in MARKS)
    return (named or told) and not any(mark in text for mark in HARMLESS)


def _chain(error: BaseException) -> List[BaseException]:
    found: List[BaseException] = []
    this: Optional[BaseException] = error
    while this is not None and this not in found:
        found.append(this)
        this = this.__cause__ or this.__context__
    return found
