# SPDX-License-Identifier: Apache-2.0
"""Which errors mean that nothing of a process runs on its card any more."""

import pytest

from gpuwarden.worker.brokencard import BrokenCardError, breaks_card


class AcceleratorError(RuntimeError):
    """Named as torch's."""


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (AcceleratorError("CUDA error: device-side assert triggered"), True),
        (AcceleratorError("CUDA error: unspecified launch failure"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), True),
        (BrokenCardError("the driver says so"), True),
        (AcceleratorError("CUDA error: out of memory"), False),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), False),
        (AcceleratorError("CUDA error: invalid configuration argument"), False),
        (AcceleratorError("CUDA error: operation not permitted when stream is capturing"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("CUDA error: device-side assert triggered"), False),
    ],
)
def test_by_class_and_text(error: Exception, expected: bool) -> None:
    assert breaks_card(error) is expected


def test_what_an_error_was_raised_from_counts_too() -> None:
    cause = AcceleratorError("CUDA error: device-side assert triggered")
    told = RuntimeError("the model failed")
    told.__cause__ = cause
    assert breaks_card(told)
    cause.__context__ = told  # a circle ends
    assert breaks_card(told)
