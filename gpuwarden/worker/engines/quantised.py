# SPDX-License-Identifier: Apache-2.0
"""A KV cache in int8: each key and each value of a head at a position has a scale of its own.

Symmetric: the largest of its values becomes 127, zero stays zero. No value is off by more than
half a level, the largest over 254; half the memory of bfloat16 and 4 bytes a head and position.
Nothing waits for the device, so all of it can be compiled and captured in a graph; the compiler
joins :func:`dequantised` with what reads it.
"""

from dataclasses import dataclass
from typing import Tuple

import torch

LEVELS = 127  # -128 is not used: symmetric
SCALE_DTYPE = torch.float32  # in bfloat16 a scale alone would be off by up to 0.4 %


def quantised(values: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
    """Levels and scales.

    What holds an infinity or no number comes back as no number as a whole: a fault in a model is
    seen, not smoothed.

    :param values: [..., size], of any floating type.
    :returns: int8 [..., size] and float32 [...].
    """
    exact = values.to(SCALE_DTYPE)
    scales = exact.abs().amax(dim=-1) / LEVELS
    # Of zeros alone the scale is 0; of the smallest numbers it may round to it.
    divisor = torch.where(scales > 0, scales, torch.ones_like(scales))
    levels = torch.nan_to_num(exact / divisor[..., None]).round_().clamp_(-LEVELS, LEVELS)
    return levels.to(torch.int8), scales


def dequantised(levels: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The values again, in the type that the attention computes in.

    :param levels: int8 [..., size]; ``scales`` are float32 [...].
    """
    return (levels.to(SCALE_DTYPE) * scales[..., None]).to(dtype)


@dataclass(frozen=True)
class QuantisedRows:
    """Keys or values of all slots: int8 [rows, heads, places, size], allocated once.

    :ivar scales: float32 [rows, heads, places].
    """

    levels: torch.Tensor
    scales: torch.Tensor

    @classmethod
    def zeros(
        cls, rows: int, heads: int, places: int, size: int, device: torch.device
    ) -> "QuantisedRows":
        """Empty ones, of zeros."""
        return cls(
            torch.zeros((rows, heads, places, size), dtype=torch.int8, device=device),
            torch.zeros((rows, heads, places), dtype=SCALE_DTYPE, device=device),
        )

    @property
    def tensors(self) -> Tuple[torch.Tensor, ...]:
        """All that is held; rows come first."""
        return self.levels, self.scales

    @property
    def bytes(self) -> int:
        """What they take."""
        return int(self.levels.nbytes + self.scales.nbytes)

    def some(self, first: int, count: int) -> "QuantisedRows":
        """So many rows from one on: no copy."""
        end = first + count
        return QuantisedRows(self.levels[first:end], self.scales[first:end])

    def part(self, rows: int, places: int) -> "QuantisedRows":
        """The first rows with their first places: no copy."""
        return QuantisedRows(self.levels[:rows, :, :places], self.scales[:rows, :, :places])

    def put(self, where: Tuple[torch.Tensor, ...], values: torch.Tensor) -> None:
        """Write the values of one token of each row.

        :param where: index tensors for rows, heads and places that broadcast to [rows, heads].
        :param values: [rows, heads, size].
        """
        levels, scales = quantised(values)
        self.levels.index_put_(where, levels)
        self.scales.index_put_(where, scales)

    def put_rows(self, rows: torch.Tensor, values: torch.Tensor) -> None:
        """Write the first places of whole rows.

        :param rows: [group], which ones; ``values`` are [group, heads, places, size].
        """
        levels, scales = quantised(values)
        places = values.shape[2]
        self.levels[:, :, :places].index_copy_(0, rows, levels)
        self.scales[:, :, :places].index_copy_(0, rows, scales)

    def read(self, dtype: torch.dtype) -> torch.Tensor:
        """All of them as values: [rows, heads, places, size]."""
        return dequantised(self.levels, self.scales, dtype)
