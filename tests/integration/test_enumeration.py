# SPDX-License-Identifier: Apache-2.0
import os
import threading

import pytest

from gpuwarden.nvml.card import CardIdentity
from gpuwarden.nvml.errors import DriverMissingError
from gpuwarden.placement.enumerate import EnumerationError, Listing, list_cards_in_child

CARD = CardIdentity(0, "GPU-a", "NVIDIA H200", "0000:10:00.0", None)


def test_the_childs_listing_arrives_whole() -> None:
    listing = Listing("580.159.04", [CARD] * 8, ["card 8: lost"])
    assert list_cards_in_child(ask=lambda: listing) == listing


def test_the_childs_error_arrives_in_words() -> None:
    def ask() -> Listing:
        raise DriverMissingError("not loaded", "NVML start", "modprobe nvidia", 9)

    with pytest.raises(EnumerationError, match="modprobe nvidia") as caught:
        list_cards_in_child(ask=ask)
    assert not caught.value.hung


def test_a_child_that_dies_is_said() -> None:
    def ask() -> Listing:
        os._exit(3)

    with pytest.raises(EnumerationError, match="died"):
        list_cards_in_child(ask=ask)


def test_a_child_that_breaks_is_said() -> None:
    def ask() -> Listing:
        raise ZeroDivisionError

    with pytest.raises(EnumerationError, match="died"):
        list_cards_in_child(ask=ask)


def test_a_driver_that_hangs_is_left_behind_at_the_deadline() -> None:
    def ask() -> Listing:
        threading.Event().wait()
        raise AssertionError

    with pytest.raises(EnumerationError, match="did not answer") as caught:
        list_cards_in_child(0.2, ask)
    assert caught.value.hung
