# SPDX-License-Identifier: Apache-2.0
"""Room on the disk for files that are on their way; what is there already the store's rows know."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gpuwarden.gateway.jobs.budget import RESULT_BYTES, DiskBudget, Held, shortage
from gpuwarden.gateway.jobs.disk import disk_room
from gpuwarden.gateway.jobs.sealed import sealed_bytes
from gpuwarden.gateway.jobs.values import JobCounts, StoreFullError


class Promises:
    """What jobs get of the disk.

    :ivar budget: may be set anew; what was promised holds.
    """

    def __init__(self, folder: Path, budget: DiskBudget) -> None:
        self.budget = budget
        self._folder = folder
        self._coming_bytes = 0
        self._replaced_bytes = 0

    @contextmanager
    def for_job(self, counts: JobCounts, length: int) -> Iterator[None]:
        """Room for an image and its answer while the image comes. Raises StoreFullError."""
        with self._kept(counts, sealed_bytes(length) + RESULT_BYTES):
            yield

    @contextmanager
    def for_result(self, counts: JobCounts, length: int, body_length: int) -> Iterator[None]:
        """Room for a job's result while it is written. Raises StoreFullError.

        So much as each job gets it has had since it was accepted, and its image goes when the
        result is there: an accepted job may take what it holds.
        """
        if length <= RESULT_BYTES:
            yield
            return
        with self._kept(counts, sealed_bytes(length) - RESULT_BYTES, sealed_bytes(body_length)):
            yield

    @contextmanager
    def _kept(self, counts: JobCounts, wanted_bytes: int, goes_bytes: int = 0) -> Iterator[None]:
        """:param goes_bytes: of files that are there, what goes when the new ones are."""
        held = Held(counts.files_bytes, counts.unanswered, self._coming_bytes, self._replaced_bytes)
        lack = shortage(self.budget, disk_room(self._folder), held, wanted_bytes, goes_bytes)
        if lack is not None:
            raise StoreFullError(lack)
        replaced = min(wanted_bytes, goes_bytes)  # what is beyond is nobody's before it is gone
        self._coming_bytes += wanted_bytes
        self._replaced_bytes += replaced
        try:
            yield
        finally:
            self._coming_bytes -= wanted_bytes
            self._replaced_bytes -= replaced
