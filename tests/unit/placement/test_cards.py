# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.control.states import Card
from gpuwarden.placement.cards import CardRecord, fix_indices, read_record, write_record
from tests.machines import card


def at(index: int, identity: int, slot: int) -> Card:
    return card(index).model_copy(
        update={"uuid": f"GPU-{identity}", "pci_address": f"0000:{slot:02x}:00.0"}
    )


def indices(cards: list[Card]) -> dict[str, tuple[int, bool]]:
    return {c.uuid: (c.index, c.present) for c in cards}


def test_a_first_boot_takes_nvmls_order() -> None:
    found = [at(0, 7, 1), at(1, 8, 2)]
    assert fix_indices(found, [], same_boot=False) == found


def test_a_new_boot_with_every_card_takes_nvmls_order_again() -> None:
    known = [at(0, 7, 1), at(1, 8, 2)]
    found = [at(0, 8, 2), at(1, 7, 1), at(2, 9, 3)]
    assert fix_indices(found, known, same_boot=False) == found


def test_within_a_boot_a_known_card_keeps_its_index() -> None:
    known = [at(0, 7, 1), at(1, 8, 2)]
    found = [at(0, 9, 3), at(1, 8, 2), at(2, 7, 1)]
    assert indices(fix_indices(found, known, same_boot=True)) == {
        "GPU-7": (0, True),
        "GPU-8": (1, True),
        "GPU-9": (2, True),
    }


@pytest.mark.parametrize("same_boot", [True, False])
def test_a_missing_card_keeps_its_index_and_its_neighbours_keep_theirs(same_boot: bool) -> None:
    known = [at(0, 7, 1), at(1, 8, 2)]
    assert indices(fix_indices([at(0, 8, 2)], known, same_boot=same_boot)) == {
        "GPU-7": (0, False),
        "GPU-8": (1, True),
    }


def test_a_card_that_comes_back_is_present_again_under_its_index() -> None:
    known = [at(0, 7, 1).model_copy(update={"present": False}), at(1, 8, 2)]
    found = [at(0, 7, 1), at(1, 8, 2)]
    assert indices(fix_indices(found, known, same_boot=True))["GPU-7"] == (0, True)


def test_a_swapped_card_takes_the_index_of_the_one_in_its_slot() -> None:
    known = [at(0, 7, 1), at(1, 8, 2)]
    found = [at(0, 99, 1), at(1, 8, 2)]
    assert indices(fix_indices(found, known, same_boot=False)) == {
        "GPU-99": (0, True),
        "GPU-8": (1, True),
    }


@given(
    st.lists(st.integers(0, 9), unique=True, max_size=6),
    st.lists(st.integers(0, 9), unique=True, max_size=6),
    st.booleans(),
)
def test_no_two_cards_share_an_index_and_none_found_is_lost(
    before: list[int], now: list[int], same_boot: bool
) -> None:
    known = [at(index, identity, identity % 5) for index, identity in enumerate(before)]
    found = [at(index, identity, identity % 5) for index, identity in enumerate(now)]
    fixed = fix_indices(found, known, same_boot=same_boot)
    assert len({c.index for c in fixed}) == len(fixed)
    assert {c.uuid for c in fixed if c.present} == {c.uuid for c in found}
    assert [c.index for c in fixed] == sorted(c.index for c in fixed)


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    record = CardRecord(boot_id="a", simulated=True, cards=[at(0, 7, 1)])
    write_record(tmp_path / "cards.json", record)
    assert read_record(tmp_path / "cards.json") == record


def test_no_record_is_none_and_a_torn_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cards.json"
    assert read_record(path) is None
    path.write_text('{"boot_id": "a", "car')
    with pytest.raises(ValueError, match=r"cards\.json"):
        read_record(path)
