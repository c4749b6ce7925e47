# SPDX-License-Identifier: Apache-2.0
"""Products of one row with a weight, by a kernel of our own: torch's own reads at half speed there.

A step of one row is nothing but reading the weights. The libraries' matrix products tile rows by 8
and more, and for small weights they take three times as long as the reading. This kernel gives
each program some outputs, whose weights it reads in long pieces. Which shape it runs in, and
whether it runs at all, is measured at load for each size of weight (see ``choice``).
"""

from dataclasses import dataclass

import torch

try:
    import triton
    import triton.language as tl
except ImportError:  # torch without a card has none
    triton = None


@dataclass(frozen=True)
class Shape:
    """How the kernel runs.

    :ivar outputs: of one program.
    :ivar piece: inputs that it reads at a time.
    :ivar warps: threads of one program, in 32s.
    """

    outputs: int
    piece: int
    warps: int


# From few outputs in long pieces, for small weights, to many; each thread reads 16 bytes at a time.
SHAPES = (
    Shape(4, 512, 4),
    Shape(8, 512, 4),
    Shape(8, 1024, 8),
    Shape(16, 512, 8),
    Shape(2, 1024, 4),
    Shape(1, 2048, 4),
)

if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator] # the library has no types
    def _product(row, weight, out, outputs, inputs, OUTPUTS: tl.constexpr, PIECE: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
        number = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
        mine = number < outputs
        begin = number.to(tl.int64)[:, None] * inputs
        total = tl.zeros((OUTPUTS, PIECE), dtype=tl.float32)
        for start in range(0, inputs, PIECE):
            place = start + tl.arange(0, PIECE)
            there = place < inputs
            values = tl.load(row + place, mask=there, other=0.0).to(tl.float32)
            weights = tl.load(
                weight + begin + place[None, :],
                mask=mine[:, None] & there[None, :],
                other=0.0,
                eviction_policy="evict_first",
            )
            total += weights.to(tl.float32) * values[None, :]
        tl.store(out + number, tl.sum(total, axis=1).to(out.dtype.element_ty), mask=mine)


@torch.library.custom_op("gpuwarden::one_row", mutates_args=())  # type: ignore[untyped-decorator] # the library has no types
def one_row(
    row: torch.Tensor, weight: torch.Tensor, outputs: int, piece: int, warps: int
) -> torch.Tensor:
    """[..., inputs] of one row times [outputs, inputs]: [..., outputs]."""
    out = torch.empty((*row.shape[:-1], weight.shape[0]), dtype=row.dtype, device=row.device)
    count, inputs = weight.shape
    grid = (-(-count // outputs),)
    _product[grid](
        row.contiguous(), weight, out, count, inputs, OUTPUTS=outputs, PIECE=piece, num_warps=warps
    )
    return out


@one_row.register_fake  # type: ignore[untyped-decorator] # the library has no types
def _shape_of(
    row: torch.Tensor, weight: torch.Tensor, outputs: int, piece: int, warps: int
) -> torch.Tensor:
    return row.new_empty((*row.shape[:-1], weight.shape[0]))
