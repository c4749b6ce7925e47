# SPDX-License-Identifier: Apache-2.0
"""Where keys or values of all rows lie: in the type that is computed in, or in int8 with scales."""

from dataclasses import dataclass
from typing import Tuple, Union

import torch

from gpuwarden.worker.engines.quantised import QuantisedRows


@dataclass(frozen=True)
class PlainRows:
    """Keys or values as they are computed: [rows, heads, places, size], allocated once."""

    values: torch.Tensor

    @property
    def tensors(self) -> Tuple[torch.Tensor, ...]:
        """All that is held; rows come first."""
        return (self.values,)

    def some(self, first: int, count: int) -> "PlainRows":
        """So many rows from one on: no copy."""
        return PlainRows(self.values[first : first + count])

    def part(self, rows: int, places: int) -> "PlainRows":
        """The first rows with their first places: no copy."""
        return PlainRows(self.values[:rows, :, :places])

    def put(self, where: Tuple[torch.Tensor, ...], values: torch.Tensor) -> None:
        """Write the values of one token of each row.

        :param where: index tensors for rows, heads and places that broadcast to [rows, heads].
        :param values: [rows, heads, size].
        """
        self.values.index_put_(where, values)

    def put_rows(self, rows: torch.Tensor, values: torch.Tensor) -> None:
        """Write the first places of whole rows.

        :param rows: [group], which ones; ``values`` are [group, heads, places, size].
        """
        self.values[:, :, : values.shape[2]].index_copy_(0, rows, values)

    def read(self, dtype: torch.dtype) -> torch.Tensor:
        """All of them: [rows, heads, places, size], where they lie."""
        return self.values.to(dtype)


Stored = Union[PlainRows, QuantisedRows]


class Stack:
    """Keys or values of some layers of one kind, in one piece.

    :param dtype: of plain values; ``in_int8`` quantises them.
    """

    def __init__(
        self,
        members: int,
        shape: Tuple[int, int, int, int],
        dtype: torch.dtype,
        device: torch.device,
        *,
        in_int8: bool,
    ) -> None:
        rows, heads, places, size = shape
        self._members, self._rows = members, rows
        self._whole: Stored
        if in_int8:
            self._whole = QuantisedRows.zeros(members * rows, heads, places, size, device)
        else:
            whole = (members * rows, heads, places, size)
            self._whole = PlainRows(torch.zeros(whole, dtype=dtype, device=device))

    @property
    def bytes(self) -> int:
        """What it takes."""
        return sum(int(tensor.nbytes) for tensor in self._whole.tensors)

    def layer(self, member: int) -> Stored:
        """One layer's: no copy."""
        return self._whole.some(member * self._rows, self._rows)

    def clear(self, row: int) -> None:
        """Zeros in a row of all layers."""
        for tensor in self._whole.tensors:
            tensor.unflatten(0, (self._members, self._rows))[:, row].zero_()

    def exchange(self, one: int, other: int) -> None:
        """Two rows change their places, in all layers."""
        for tensor in self._whole.tensors:
            layers = tensor.unflatten(0, (self._members, self._rows))
            kept = layers[:, one].clone()
            layers[:, one] = layers[:, other]
            layers[:, other] = kept
