# SPDX-License-Identifier: Apache-2.0
"""A store on disk, for tests."""

from pathlib import Path

from gpuwarden.gateway.jobs.budget import DiskBudget
from gpuwarden.gateway.jobs.keys import StoreKey
from gpuwarden.gateway.jobs.recovery import open_store
from gpuwarden.gateway.jobs.store import DiskStore
from gpuwarden.gateway.jobs.values import JobResult, NewJob

KEY = StoreKey(bytes(range(32)))
BUDGET = DiskBudget(1 << 30, 0.0)
ANSWER = JobResult(ok=True, answer={"said": "nothing"}, model="m", worker=0, seconds=0.5)


async def opened(folder: Path, key: StoreKey = KEY) -> DiskStore:
    return await open_store(folder, key, BUDGET)


def job(content: bytes = b"image", priority: int = 0, key: str = "") -> NewJob:
    return NewJob(
        content=memoryview(content),
        media_type="image/png",
        question="what?",
        priority=priority,
        idempotency=KEY.digest(key.encode()) if key else None,
        request=KEY.digest(content) if key else None,
    )


async def submitted(store: DiskStore, *contents: bytes) -> list[str]:
    return [(await store.submit(job(content)))[0].id for content in contents]


async def content_of(store: DiskStore, id: str) -> bytes:
    (lease,) = [one for one in await store.claim(100, 60.0) if one.id == id]
    content = bytearray()

    def place(length: int) -> memoryview:
        content.extend(bytes(length))
        return memoryview(content)

    await store.fetch(lease, place)
    return bytes(content)
