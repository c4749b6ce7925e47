# SPDX-License-Identifier: Apache-2.0
"""Weights merged at load, and the kernel for one row where it runs by torch's own product."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from gpuwarden.worker.engines.transformers.choosing import best
from gpuwarden.worker.engines.transformers.merging import Part, Product, merge
from gpuwarden.worker.engines.transformers.onerow import SHAPES, one_row
from tests.engine.driving import Driver, asked, generated

LONG = asked("Tell me more.", image=3, max_tokens=40)
TEXT = asked("How are you?", max_tokens=20)


class Block(torch.nn.Module):  # type: ignore[misc] # the library has no types
    """As the library's attention names its weights."""

    def __init__(self, bias: bool = False) -> None:
        super().__init__()
        self.q_proj = torch.nn.Linear(8, 6, bias=bias)
        self.k_proj = torch.nn.Linear(8, 4, bias=bias)
        self.v_proj = torch.nn.Linear(8, 2, bias=bias)
        self.o_proj = torch.nn.Linear(6, 8, bias=False)


def test_each_takes_its_part_in_whatever_order_they_are_asked() -> None:
    block, values, others = Block(), torch.randn(2, 3, 8), torch.randn(2, 3, 8)
    names = ("q_proj", "k_proj", "v_proj")
    weights = {name: getattr(block, name).weight.clone() for name in names}
    assert len(merge([block.requires_grad_(False)])) == 2
    for order in (names, names[::-1], ("k_proj", "q_proj", "v_proj", "v_proj")):
        for given in (values, others):
            for name in order:
                found = getattr(block, name)(given)
                assert torch.allclose(found, given @ weights[name].T, atol=1e-6)
    own, merged = block.q_proj.weight, block.get_parameter("_merged.weight")
    assert own.untyped_storage().data_ptr() == merged.untyped_storage().data_ptr()


def test_those_with_a_bias_stay_as_they_are() -> None:
    block = Block(bias=True)
    merge([block])
    assert type(block.q_proj) is torch.nn.Linear
    assert type(block.o_proj) is Product


@pytest.fixture
def own_product() -> Iterator[None]:
    """The kernel's place on a CPU taken by torch's own product."""

    @one_row.register_kernel("cpu")  # type: ignore[untyped-decorator] # the library has no types
    def _(
        row: torch.Tensor, weight: torch.Tensor, outputs: int, piece: int, warps: int
    ) -> torch.Tensor:
        assert row.numel() == row.shape[-1]
        return row @ weight.T

    yield


@pytest.mark.usefixtures("own_product")
def test_one_row_goes_by_the_kernel_and_more_by_torch(gemma3: Path) -> None:
    driver = Driver(gemma3)
    whole = driver.engine._built.model.whole
    products = [one for one in whole.modules() if isinstance(one, Product)]
    parts = [one for one in whole.modules() if isinstance(one, Part)]
    layers = len(driver.engine._built.model.layers)
    assert (len(products), len(parts)) == (4 * layers, 5 * layers)
    for one in products:
        one.shape = SHAPES[0]
    driver.join_all({0: LONG, 1: TEXT})
    driver.until_all_are_through(0, 1)
    assert driver.tokens[0] == generated(gemma3, LONG)
    assert driver.alone(TEXT) == generated(gemma3, TEXT)


def test_without_merging_the_answers_are_the_same(gemma3: Path) -> None:
    driver = Driver(gemma3, merge_weights=False)
    assert driver.alone(TEXT) == generated(gemma3, TEXT)


def test_a_shape_is_chosen_where_it_is_faster_by_something() -> None:
    fast, slow = SHAPES[:2]
    assert best({None: 10.0, fast: 8.0, slow: 9.0}) == fast
    assert best({None: 10.0, fast: 9.9}) is None
    assert best({fast: 1.0}) is None
    assert best({}) is None
