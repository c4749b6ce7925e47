# SPDX-License-Identifier: Apache-2.0
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuwarden.gateway import multipart
from gpuwarden.gateway.errors import ApiError
from gpuwarden.gateway.multipart import boundary_of, media_type_of, split

BOUNDARY = "x-frontier"
# Bytes that look like a delimiter's beginning, to be told from one.
NASTY = st.lists(
    st.sampled_from([b"\r\n", b"--", b"\r\n--", b"x-front", b"\r", b"\n", b"-", b"a", bytes(40)]),
    max_size=12,
).map(b"".join)

# What the standard library's parser fails on, and what leads there; "\udcff" was no UTF-8.
HOSTILE = [
    *"*;=/x'\"%",
    "boundary",
    "*0*",
    ";boundary*=a",
    ";boundary*0=a",
    "1" * 5000,
    "idna''",
    "a\0b''",
    "\udcff",
    "\xe9",
]


def form(parts: list[tuple[str, bytes]], *, preamble: bytes = b"", epilogue: bytes = b"") -> bytes:
    body = preamble + b"\r\n" * bool(preamble)
    for name, content in parts:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    return body + f"--{BOUNDARY}--".encode() + epilogue


@given(
    contents=st.lists(NASTY, min_size=1, max_size=4),
    preamble=st.sampled_from([b"", b"preamble", b"--", b"x\r\ny"]),
    epilogue=st.sampled_from([b"", b"\r\n", b"\r\nepilogue"]),
    window=st.integers(1, 64),
)
async def test_parts_lie_where_they_were_put(
    contents: list[bytes], preamble: bytes, epilogue: bytes, window: int
) -> None:
    parts = [(f"part{number}", content) for number, content in enumerate(contents)]
    body = form(parts, preamble=preamble, epilogue=epilogue)
    patch = pytest.MonkeyPatch()
    patch.setattr(multipart, "WINDOW_BYTES", window)
    try:
        found = await split(memoryview(body), BOUNDARY.encode())
    finally:
        patch.undo()
    assert [(part.name, body[part.offset : part.offset + part.length]) for part in found] == parts


@given(cut=st.integers(0, 10_000))
async def test_a_form_that_is_cut_anywhere_is_refused(cut: int) -> None:
    body = form([("image", b"pixels" * 9), ("question", b"why?")])
    with pytest.raises(ApiError, match="invalid_request"):
        await split(memoryview(body[: cut % (len(body) - 1)]), BOUNDARY.encode())


@given(body=st.binary(max_size=300))
async def test_anything_else_is_refused_and_nothing_else_raised(body: bytes) -> None:
    with pytest.raises(ApiError, match="invalid_request"):
        await split(memoryview(body), b"never-in-300-bytes")


@pytest.mark.parametrize(
    "head",
    [
        "Content-Disposition: form-data",
        "Content-Type: image/png",
        'Content-Disposition: form-data; name="image"\r\nContent-Transfer-Encoding: base64',
        "X: " + "y" * 9000,
        f"Content-Disposition: form-data; name*{'1' * 5000}=image",
        'Content-Disposition: form-data; name*="image"; name*0="image"',
    ],
)
async def test_a_part_without_a_usable_head_is_refused(head: str) -> None:
    body = f"--b\r\n{head}\r\n\r\ncontent\r\n--b--".encode()
    with pytest.raises(ApiError, match="invalid_request"):
        await split(memoryview(body), b"b")


async def test_a_form_of_endless_parts_is_refused() -> None:
    with pytest.raises(ApiError) as refused:
        await split(memoryview(form([("p", b"")] * 9)), BOUNDARY.encode())
    assert "more than 8 parts" in refused.value.message


@pytest.mark.parametrize(
    ("header", "boundary"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ('multipart/form-data; charset=utf-8; boundary="a b"', b"a b"),
        ("Multipart/Form-Data; Boundary=abc", b"abc"),
    ],
)
def test_a_boundary_is_found(header: str, boundary: bytes) -> None:
    assert boundary_of(header) == boundary


@pytest.mark.parametrize(
    "value",
    [
        "",
        "; boundary=",
        "; boundary=" + "x" * 71,
        "; boundary=ä",
        "; boundary*=utf-8''a; boundary*0=b",
    ],
)
def test_a_form_without_a_usable_boundary_is_refused(value: str) -> None:
    with pytest.raises(ApiError) as refused:
        boundary_of("multipart/form-data" + value)
    assert refused.value.param == "Content-Type"


@given(st.lists(st.sampled_from(HOSTILE), max_size=9).map("".join))
def test_law_what_headers_say_is_read_or_refused(words: str) -> None:
    for read in (media_type_of, boundary_of):
        with contextlib.suppress(ApiError):
            read("multipart/form-data; " + words)
            read(words)
