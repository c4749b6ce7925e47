# SPDX-License-Identifier: Apache-2.0
"""The transformers engine's books, which need neither torch nor a card: rows, shapes, options."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.worker.engine import OptionsError
from gpuwarden.worker.engines.transformers.joining import Durations, Joiner, Work, next_work
from gpuwarden.worker.engines.transformers.options import read_options
from gpuwarden.worker.engines.transformers.rows import Rows
from gpuwarden.worker.engines.transformers.shapes import bucket, plan_shapes


class TestShapes:
    def test_a_card_of_32_slots(self) -> None:
        shapes = plan_shapes(32, 1024, 4, fixed=False)
        assert shapes.slots == (1, 8, 16, 32)
        assert shapes.lengths == (256, 512, 1024)
        assert shapes.prompts == (64, 128, 256, 352, 384, 512, 768, 1024)
        assert shapes.groups == (1, 2, 4)

    def test_reproducible_means_one_shape_but_for_prompts(self) -> None:
        shapes = plan_shapes(32, 1024, 4, fixed=True)
        assert (shapes.slots, shapes.lengths, shapes.groups) == ((32,), (1024,), (4,))

    @given(st.integers(1, 64), st.integers(16, 5000), st.integers(1, 8), st.booleans())
    def test_each_request_finds_a_shape(
        self, slots: int, cache_tokens: int, group: int, fixed: bool
    ) -> None:
        shapes = plan_shapes(slots, cache_tokens, group, fixed=fixed)
        for ends, last in ((shapes.slots, slots), (shapes.lengths, cache_tokens)):
            assert ends[-1] == last
            assert list(ends) == sorted(set(ends))
            assert all(bucket(wanted, ends) >= wanted for wanted in (1, last))
        assert shapes.groups[-1] == min(group, slots)
        assert shapes.prompts[-1] == cache_tokens


class TestRows:
    def test_whoever_joins_gets_the_lowest_free_row(self) -> None:
        rows = Rows(4)
        assert [rows.take(slot) for slot in (7, 3, 5)] == [0, 1, 2]
        assert rows.free(3) == 1
        assert rows.free(3) is None
        assert rows.take(9) == 1
        assert 9 in rows
        assert 3 not in rows

    @given(st.lists(st.integers(0, 11), max_size=60))
    def test_a_step_is_never_larger_than_its_bucket(self, turns: list[int]) -> None:
        """Each turn a slot comes or goes; the cache follows the moves that are told."""
        rows, cache = Rows(12), dict.fromkeys(range(12), -1)
        inside: list[int] = []
        for slot in turns:
            if slot in inside:
                inside.remove(slot)
                rows.free(slot)
            else:
                inside.append(slot)
                cache[rows.take(slot)] = slot
            for one, other in rows.moves(inside, (1, 8, 12)):
                cache[one], cache[other] = cache[other], cache[one]
            assert all(cache[rows[member]] == member for member in inside)
            if inside:
                most = bucket(len(inside), (1, 8, 12))
                assert rows.extent(inside) <= most


class TestOptions:
    def test_all_problems_are_told_at_once(self) -> None:
        table = {"pth": "x", "tf32": 1, "cache_tokens": 2, "attn_implementation": "flash"}
        with pytest.raises(OptionsError) as caught:
            read_options(table)
        for text in (
            "pth is no such option, should be one of",
            "path is missing",
            "tf32 is 1, should be true or false",
            "cache_tokens is 2, should be a whole number from 16",
            "should be one of auto, sdpa, eager",
        ):
            assert text in str(caught.value)

    @pytest.mark.parametrize("window", [[1], [2, 1], [0, 101], ["0", "1"], [True, 2]])
    def test_a_window_is_two_percentiles(self, window: Any) -> None:
        with pytest.raises(OptionsError, match="two numbers from 0 to 100"):
            read_options({"path": "/m", "window_percentiles": window})

    def test_the_temperature_counts_where_answers_are_drawn(self) -> None:
        assert read_options({"path": "/m"}).default_temperature == 0
        drawn = read_options({"path": "/m", "do_sample": True, "monitor_interval": 1})
        assert drawn.default_temperature == 0.7


SHAPES = plan_shapes(32, 1024, 4, fixed=False)
CARD = Durations(step=4.5, look=12.0, prompts={(2, 352): 11.0, (4, 352): 18.0, (4, 1024): 60.0})


def work(*waiting: tuple[int, int], streams: bool, tokens: int = 321) -> Work:
    """What is done for those of so many pictures, so many of them unseen."""
    joiners = [Joiner(tokens, pictures, unseen) for pictures, unseen in waiting]
    return next_work(joiners, SHAPES, 8, CARD, streams=streams)


def test_while_nobody_streams_a_group_comes_in_at_once() -> None:
    assert work(*[(1, 1)] * 6, streams=False) == Work(looks=4, prompts=4)
    assert work((8, 8), (1, 1), streams=False) == Work(looks=8, prompts=1)


def test_while_others_stream_one_picture_is_looked_at_or_a_group_taken_in() -> None:
    assert work(*[(1, 1)] * 6, streams=True) == Work(looks=1, prompts=0)
    assert work((1, 0), (1, 0), (1, 0), (1, 1), streams=True) == Work(looks=1, prompts=0)
    assert work(*[(1, 0)] * 4, (1, 1), streams=True) == Work(looks=0, prompts=4)


def test_who_has_been_looked_at_waits_for_company_of_one_look_alone() -> None:
    assert work((1, 0), (3, 3), streams=True) == Work(looks=0, prompts=1)
    assert work((1, 0), (3, 1), streams=True) == Work(looks=1, prompts=0)
    assert work((1, 0), streams=True) == Work(looks=0, prompts=1)


def test_a_group_takes_no_longer_than_streams_may_pause() -> None:
    assert work(*[(0, 0)] * 4, streams=True, tokens=1024) == Work(looks=0, prompts=2)
    assert work(*[(0, 0)] * 4, streams=False, tokens=1024) == Work(looks=0, prompts=4)
    assert work(streams=True) == Work(looks=0, prompts=0)
