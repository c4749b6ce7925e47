# SPDX-License-Identifier: Apache-2.0
"""One body or result as a file that only the holder of the store's key can read.

The content is one AES-256-GCM message under a key of the file's own; that key lies in the file's
head, wrapped by the store's key. So a file is complete in itself, what was cut short or altered is
known as such, and zeroing 60 bytes makes a deleted one unreadable even for whoever has the store's
key and the disk.

    magic | lengths | key slot (nonce, wrapped key) | sealed meta | content, encrypted | tag

Both messages of a file are under its own key, used for nothing else: their nonces are 0 and 1. The
name that a file is for is authenticated with each, so files can't be exchanged.
"""

import contextlib
import json
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gpuwarden.gateway.jobs.values import JobStoreError

MAGIC = b"GPWJOB1\n"
HEAD = struct.Struct("<8sIQ")  # magic, length of the sealed meta, length of the content
KEY_BYTES, NONCE_BYTES, TAG_BYTES = 32, 12, 16
SLOT_BYTES = NONCE_BYTES + KEY_BYTES + TAG_BYTES
META_LIMIT_BYTES = 256 << 10
META_NONCE, CONTENT_NONCE = (number.to_bytes(NONCE_BYTES, "big") for number in (0, 1))
STEP_BYTES = 1 << 20  # encrypted in 0.2 ms


class SealError(JobStoreError):
    """A file is not what it should be: cut short, altered, or under another key."""


class OtherKeyError(SealError):
    """Its key can't be unwrapped, and was not destroyed."""


@dataclass(frozen=True)
class Sealed:
    """What a sealed file holds beside its content."""

    meta: dict[str, Any]
    length: int


def shown(name: str) -> str:
    """What a message may call a file: a job's whole id would let any reader of a log read it."""
    id, dot, kind = name.partition(".")
    return f"{id[:8]}*{dot}{kind}"


def sealed_bytes(length: int) -> int:
    """What a file with ``length`` bytes of content takes, its usual meta included."""
    return HEAD.size + SLOT_BYTES + 1024 + length + TAG_BYTES


def write(
    path: Path, store_key: bytes, name: str, meta: dict[str, Any], content: memoryview
) -> int:
    """Make a sealed file, durable but for its name; returns its size.

    What had that name before is destroyed.

    :raises OSError: the disk is full or fails; nothing that can be read is left behind.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    if temporary.exists():  # of a try before: the disk refused to destroy it
        destroy(temporary)
    key = AESGCM.generate_key(8 * KEY_BYTES)
    sealed_meta = AESGCM(key).encrypt(META_NONCE, json.dumps(meta).encode(), _context(name, b"m"))
    slot_nonce = os.urandom(NONCE_BYTES)
    slot = slot_nonce + AESGCM(store_key).encrypt(slot_nonce, key, _context(name, b"k"))
    head = HEAD.pack(MAGIC, len(sealed_meta), len(content)) + slot + sealed_meta
    size = len(head) + len(content) + TAG_BYTES
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        with FileIO(os.open(temporary, flags, 0o600), "wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)  # a full disk is told before, not half way
            _write_all(file, head)
            _write_content(file, key, _context(name, b"c"), content)
            os.fdatasync(file.fileno())
        _name(temporary, path)
    except BaseException:
        destroy(temporary)
        raise
    return size


def read_meta(path: Path, store_key: bytes, name: str) -> Sealed:
    """What the head says, without the content. Raises SealError, OSError."""
    with FileIO(path) as file:
        return _read_head(file, store_key, name)[0]


def read(path: Path, store_key: bytes, name: str, place: Callable[[int], memoryview]) -> Sealed:
    """Decrypt the content into where ``place`` of its length says.

    :raises SealError: it is not what was written; what is in place then must not be used.
    """
    with FileIO(path) as file:
        sealed, key = _read_head(file, store_key, name)
        target = place(sealed.length)
        cipher = Cipher(algorithms.AES256(key), modes.GCM(CONTENT_NONCE)).decryptor()
        cipher.authenticate_additional_data(_context(name, b"c"))
        step = bytearray(STEP_BYTES)
        for offset in range(0, sealed.length, STEP_BYTES):
            view = memoryview(step)[: min(STEP_BYTES, sealed.length - offset)]
            _read_all(file, view, name)
            cipher.update_into(view, target[offset : offset + len(view)])
        tag = bytearray(TAG_BYTES)
        _read_all(file, memoryview(tag), name)
        try:
            cipher.finalize_with_tag(bytes(tag))
        except InvalidTag:
            raise SealError(f"{shown(name)}: its content was altered") from None
    return sealed


def destroy(path: Path) -> None:
    """Overwrite the file's key, then remove it; nothing happens where there is none.

    :raises OSError: the disk fails.
    """
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            _destroy_key(descriptor)
        finally:
            os.close(descriptor)
        path.unlink()


def _destroy_key(descriptor: int) -> None:
    """Overwrite what there is of it: to lengthen a file that was cut short would want room."""
    length = os.fstat(descriptor).st_size - HEAD.size
    os.pwrite(descriptor, bytes(max(0, min(SLOT_BYTES, length))), HEAD.size)
    os.fdatasync(descriptor)


def _name(temporary: Path, path: Path) -> None:
    """Rename a file, over another perhaps: nobody finds that one's key any more to destroy it.

    So it goes before: who is stopped between the two has an answer less, and no key more.
    """
    try:
        former = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        temporary.rename(path)
        return
    try:
        _destroy_key(former)
    finally:  # a disk that refuses is told of, and the next try finds a file that is sound
        os.close(former)
        temporary.rename(path)


def _context(name: str, part: bytes) -> bytes:
    return MAGIC + part + name.encode()


def _write_content(file: FileIO, key: bytes, context: bytes, content: memoryview) -> None:
    cipher = Cipher(algorithms.AES256(key), modes.GCM(CONTENT_NONCE)).encryptor()
    cipher.authenticate_additional_data(context)
    step = bytearray(STEP_BYTES)
    for offset in range(0, len(content), STEP_BYTES):
        length = cipher.update_into(content[offset : offset + STEP_BYTES], step)
        _write_all(file, memoryview(step)[:length])
    cipher.finalize()
    _write_all(file, cipher.tag)


def _write_all(file: FileIO, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _read_all(file: FileIO, target: memoryview, name: str) -> None:
    while target:
        count = file.readinto(target)
        if not count:
            raise SealError(f"{shown(name)}: it was cut short")
        target = target[count:]


def _read_head(file: FileIO, store_key: bytes, name: str) -> tuple[Sealed, bytes]:
    head = bytearray(HEAD.size + SLOT_BYTES)
    _read_all(file, memoryview(head), name)
    magic, meta_length, length = HEAD.unpack_from(head)
    if magic != MAGIC or meta_length > META_LIMIT_BYTES:
        raise SealError(f"{shown(name)}: it is no sealed file")
    sealed_meta = bytearray(meta_length)
    _read_all(file, memoryview(sealed_meta), name)
    if os.fstat(file.fileno()).st_size != len(head) + meta_length + length + TAG_BYTES:
        raise SealError(f"{shown(name)}: it has another length than it says")
    slot = bytes(head[HEAD.size :])
    if not any(slot):
        raise SealError(f"{shown(name)}: its key was destroyed")
    try:
        key = AESGCM(store_key).decrypt(
            slot[:NONCE_BYTES], slot[NONCE_BYTES:], _context(name, b"k")
        )
    except InvalidTag:
        text = f"{shown(name)}: it is under another key, or its head was altered"
        raise OtherKeyError(text) from None
    try:
        meta = json.loads(AESGCM(key).decrypt(META_NONCE, bytes(sealed_meta), _context(name, b"m")))
    except InvalidTag:
        raise SealError(f"{shown(name)}: its head was altered") from None
    return Sealed(meta, length), key
