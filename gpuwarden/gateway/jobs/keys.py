# SPDX-License-Identifier: Apache-2.0
"""The store's key: a credential that systemd unseals for this process; its file is never ours.

``medgemma-jobs-key.service`` makes it and keeps it sealed to this machine.
"""

import hashlib
import os
from pathlib import Path

KEY_BYTES = 32
CREDENTIAL = "gpuwarden-jobs-key"


class NoKeyError(Exception):
    """There is no usable key; the text says why and what to do."""


class StoreKey:
    """The key that wraps the files' keys, and the keyed hashes that follow from it."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEY_BYTES:
            raise NoKeyError(
                f"the credential {CREDENTIAL} has {len(secret)} bytes, not {KEY_BYTES}: see"
                " systemctl status medgemma-jobs-key.service"
            )
        self.secret = secret
        self._hash_key = _derived(secret, b"digest")

    @property
    def check(self) -> bytes:
        """Tells this key from another without telling anything of it."""
        return _derived(self.secret, b"check")

    def digest(self, *parts: bytes | memoryview) -> bytes:
        """A keyed hash: says whether two contents are the same to nobody but us."""
        state = hashlib.blake2b(digest_size=32, key=self._hash_key)
        for part in parts:
            state.update(len(part).to_bytes(8, "little"))
            state.update(part)
        return state.digest()


def _derived(secret: bytes, purpose: bytes) -> bytes:
    return hashlib.blake2b(purpose, digest_size=32, key=secret, person=b"gpuwarden-jobs").digest()


def key_from_credential() -> StoreKey:
    """The key as systemd hands it over. Raises NoKeyError."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        raise NoKeyError(missing())
    try:
        return StoreKey((Path(folder) / CREDENTIAL).read_bytes())
    except OSError as error:
        raise NoKeyError(f"{missing()} ({error.strerror})") from error


def missing() -> str:
    """What to say where the key isn't there."""
    return (
        f"there is no credential {CREDENTIAL}, so no body could be kept encrypted: see"
        " systemctl status medgemma-jobs-key.service"
    )
