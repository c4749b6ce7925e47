# SPDX-License-Identifier: Apache-2.0
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.bus.library import Marshaller, SignatureTree, Variant
from gpuwarden.bus.wire import clean_body, clean_text, plain, to_variant, to_wire

SIGNATURES = ["u", "t", "i", "d", "b", "s", "as", "a{uu}", "a{ss}", "a(uossu)", "y", "n", "q", "x"]
ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.lists(st.text()),
    st.dictionaries(st.text(), st.text()),
)


@given(st.sampled_from([one for one in SIGNATURES if "(" not in one]), ANYTHING)
def test_any_value_becomes_one_that_the_wire_takes(signature: str, value: object) -> None:
    body = [to_wire(signature, value)]
    SignatureTree._get(signature).verify(body)
    Marshaller(signature, body).marshall()


@given(st.text(st.characters(), max_size=50))
def test_clean_text_can_always_be_sent(text: str) -> None:
    cleaned = clean_text(text)
    assert "\0" not in cleaned
    cleaned.encode("utf-8")


@pytest.mark.parametrize(
    ("signature", "unknown"), [("u", 0), ("t", 0), ("i", -1), ("s", ""), ("as", []), ("a{uu}", {})]
)
def test_unknown_is_what_the_contract_says(signature: str, unknown: object) -> None:
    assert to_wire(signature, None) == unknown


def test_unknown_doubles_are_nan() -> None:
    assert math.isnan(to_wire("d", None))


@pytest.mark.parametrize(
    ("signature", "value", "sent"),
    [("u", 2**40, 2**32 - 1), ("u", -3, 0), ("t", 2**70, 2**64 - 1), ("i", -(2**40), -(2**31))],
)
def test_integers_out_of_range_are_clamped(signature: str, value: int, sent: int) -> None:
    assert to_wire(signature, value) == sent


def test_texts_are_cleaned_at_any_depth() -> None:
    body = clean_body([{"a\0": [Variant("s", "b\0")]}, ["c\ud800"]])
    assert body == [{"a\ufffd": [Variant("s", "b\ufffd")]}, ["c?"]]


def test_plain_removes_variants_at_any_depth() -> None:
    value = {"a": Variant("a{sv}", {"b": Variant("as", ["c"])})}
    assert plain(value) == {"a": {"b": ["c"]}}


def test_a_variant_carries_its_signature() -> None:
    assert to_variant("a{uu}", {1: 2}) == Variant("a{uu}", {1: 2})
