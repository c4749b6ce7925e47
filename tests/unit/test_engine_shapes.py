"""The transformers engine's books, which need neither torch nor a card: rows, shapes, options."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.worker.engine import OptionsError
from gpuwarden.worker.engines.transformers.joining import may_join_together
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


@pytest.mark.parametrize(
    ("pictures", "beside", "together"),
    [
        ([1, 1, 1, 1], 0, True),
        ([1, 1], 31, True),
        ([1, 1, 1], 31, False),
        ([0, 0, 0, 0], 31, True),
        ([2, 1], 1, False),
        ([8], 31, True),
    ],
)
def test_few_pictures_go_between_two_steps_of_others(
    pictures: list[int], beside: int, together: bool
) -> None:
    assert may_join_together(pictures, beside) is together
