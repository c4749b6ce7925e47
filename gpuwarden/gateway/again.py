# SPDX-License-Identifier: Apache-2.0
"""Background requests between two workers: which of them may have been begun. Pure.

How often a durable job was executed is on disk before it is executed once more. So whatever a
worker may have begun is held until that is noted: it died with it, or it was asked to give it back
and did not say that it had not begun. What certainly was not is no repeat, and waits at once.
"""

from gpuwarden.gateway.work import Action, Repeat, Request, Seat


class Again:
    """Those that are held."""

    def __init__(self) -> None:
        self._recalled: dict[int, Request] = {}  # by lease, until their workers answer
        self._begun: list[Request] = []

    def recall(self, request: Request) -> None:
        """Its worker was asked to give it back."""
        self._recalled[request.lease] = request

    def answered(self, lease: int) -> Request | None:
        """Whose lease a worker has answered, where it was asked to give it back."""
        request = self._recalled.pop(lease, None)
        return None if request is None or request.has_ended else request

    def left_in(self, seat: Seat) -> list[Request]:
        """What a worker was asked to give back that won't answer any more."""
        leases = [lease for batch in seat.batches.values() for lease in batch.leases]
        found = [self.answered(lease) for lease in leases]
        return [request for request in found if request is not None]

    def begun(self, request: Request) -> None:
        """A worker may have begun it: it waits for its owner's note."""
        self._begun.append(request)

    def due(self) -> list[Action]:
        """The owners that have to be told."""
        due, self._begun = self._begun, []
        return [Repeat(request) for request in due if not request.has_ended]
