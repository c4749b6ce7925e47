# SPDX-License-Identifier: Apache-2.0
import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from gpuwarden.worker.buffers import Extent, LentBuffer
from gpuwarden.worker.direct import Direct, is_direct
from gpuwarden.worker.engine import Engine, Request
from gpuwarden.worker.faults import Failure
from gpuwarden.worker.pool import Prepared, Task

META = {"form": "predict", "question": "why", "media_type": "image/png", "parameters": {}}


class Bare(Engine):
    pass


class Preparing(Engine):
    def preprocess(self, request: Request) -> Any:
        return bytes(request.body)


@pytest.fixture
def lent() -> Iterator[LentBuffer]:
    descriptor = os.memfd_create("body", os.MFD_ALLOW_SEALING)
    os.write(descriptor, b"0123456789")
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, 0x17)
    buffer = LentBuffer(descriptor, 10)
    yield buffer
    buffer.close()


def request_of(direct: Direct, content: bytes | Extent) -> Request:
    prepared = direct.prepare(Task(1, dict(META), content))
    assert isinstance(prepared, Prepared)
    assert isinstance(prepared.value, Request)
    return prepared.value


def body_of(direct: Direct, content: bytes | Extent) -> memoryview:
    return request_of(direct, content).body


def test_only_a_class_without_a_preprocess_of_its_own_takes_requests_as_they_come() -> None:
    assert is_direct(Bare())
    assert not is_direct(Preparing())


def test_a_chat_has_to_be_read_first() -> None:
    assert Direct().takes(Task(1, dict(META), b"image"))
    assert not Direct().takes(Task(1, {**META, "form": "chat"}, b"{}"))


def test_a_small_request_is_all_there() -> None:
    request = request_of(Direct(), b"image")
    assert (request.question, request.media_type, bytes(request.body)) == (
        "why",
        "image/png",
        b"image",
    )


def test_an_image_of_too_many_pixels_gets_no_further() -> None:
    png = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + struct.pack(">II", 1000, 1000)
    refused = Direct(max_pixels=999_999).prepare(Task(1, dict(META), png))
    assert isinstance(refused, Failure)
    assert (refused.kind, refused.param) == ("too_many_pixels", "image")
    assert bytes(body_of(Direct(max_pixels=1_000_000), png)) == png


def test_a_large_body_is_read_where_it_lies_and_cannot_be_written(lent: LentBuffer) -> None:
    body = body_of(Direct(), Extent(lent, 2, 5))
    assert bytes(body) == b"23456"
    assert body.readonly
    assert isinstance(body.obj, mmap.mmap)


def test_a_buffer_is_mapped_once(lent: LentBuffer) -> None:
    direct = Direct()
    first, second = (body_of(direct, Extent(lent, 0, 10)) for _ in range(2))
    assert first.obj is second.obj


def test_a_buffer_that_is_taken_back_is_unmapped_and_can_come_again(lent: LentBuffer) -> None:
    direct = Direct()
    mapping = body_of(direct, Extent(lent, 0, 10)).obj
    direct.retire([lent.number, lent.number + 1])
    assert isinstance(mapping, mmap.mmap)
    assert mapping.closed
    assert bytes(body_of(direct, Extent(lent, 0, 4))) == b"0123"


def test_a_buffer_that_is_still_read_is_unmapped_with_its_last_reader(lent: LentBuffer) -> None:
    direct = Direct()
    body = body_of(direct, Extent(lent, 0, 10))
    direct.retire([lent.number])
    assert bytes(body) == b"0123456789"
