# SPDX-License-Identifier: Apache-2.0
"""What was set aside, as a file remembers it for the next process. Pure.

The key is in it: who may read the file may read this process's memory, too.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from gpuwarden.gateway.marks import LIMIT, Marks

KEY_BYTES = 32
DIGEST_BYTES = 32

Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class KeptMark(BaseModel):
    """One of them; its end on CLOCK_BOOTTIME, which no clock step moves."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    length: int = Field(ge=0)
    digest: Hex
    until_boottime_seconds: float = Field(allow_inf_nan=False)


class KeptMarks(BaseModel):
    """All of them, oldest first, and the key of their hashes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    boot_id: str
    key: Hex
    marks: list[KeptMark] = Field(max_length=LIMIT)


def kept(marks: Marks, key: bytes, boot_id: str) -> KeptMarks:
    """What the file is to hold."""
    return KeptMarks(
        boot_id=boot_id,
        key=key.hex(),
        marks=[
            KeptMark(length=length, digest=digest.hex(), until_boottime_seconds=until)
            for length, digest, until in marks.until()
        ],
    )


def restored(document: KeptMarks, boot_id: str, now: float) -> Marks:
    """What of it still holds; nothing of another boot."""
    marks = Marks()
    for one in document.marks if document.boot_id == boot_id else ():
        until = one.until_boottime_seconds
        marks.restore(one.length, bytes.fromhex(one.digest), until, now)
    return marks
