# SPDX-License-Identifier: Apache-2.0
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.gateway.bodyscan import SCANNED_BYTES, model_in, references_in

ID = "0123456789abcdef0123456789abcdef"
OTHER = ID[::-1]

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=8) | st.just("model"), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=4), st.booleans(), st.integers(0, 9))
def test_the_model_is_found_only_where_it_really_stands(
    others: dict[str, Any], first: bool, filling: int
) -> None:
    others.pop("model", None)
    padding = {"padding": '\\" "model": "not this one" ' * (filling * 500)}
    named = {"model": "medgemma"}
    document = named | others | padding if first else padding | others | named
    for body in (json.dumps(document), json.dumps(document, ensure_ascii=False)):
        found = model_in(memoryview(body.encode("utf-8", "replace")))
        assert found in {"medgemma", None}
    small = json.dumps(named | others).encode()
    assert model_in(memoryview(small)) == "medgemma"
    assert model_in(memoryview(json.dumps(others | {"more": named}).encode())) is None


def test_the_model_is_found_behind_a_big_image_as_openais_client_writes_it() -> None:
    image = "A" * (3 * SCANNED_BYTES)
    document = {"messages": [{"url": image, "model": "inner"}], "model": "medgemma", "seed": 1}
    assert model_in(memoryview(json.dumps(document).encode())) == "medgemma"


def test_brackets_without_end_cost_no_time() -> None:
    assert model_in(memoryview(b"[" * SCANNED_BYTES * 3)) is None
    assert model_in(memoryview(b'"' * SCANNED_BYTES * 3)) is None
    assert model_in(memoryview(b"\\" * SCANNED_BYTES * 3)) is None


async def test_references_are_found_once_each_in_their_order() -> None:
    body = f'"gpuwarden://{ID}" "gpuwarden:\\/\\/{OTHER}" "gpuwarden://{ID}"'.encode()
    assert await references_in(memoryview(body)) == [ID, OTHER]


async def test_a_reference_across_two_windows_is_found() -> None:
    for shift in range(40):
        body = b"x" * ((256 << 10) - shift) + f'"gpuwarden://{ID}"'.encode()
        assert await references_in(memoryview(body)) == [ID]


async def test_what_is_no_reference_is_not_taken_for_one() -> None:
    body = f"gpuwarden://{ID}0 gpuwarden://{ID[:-1]} gpuwarden://{ID.upper()}X".encode()
    assert await references_in(memoryview(body)) == []
