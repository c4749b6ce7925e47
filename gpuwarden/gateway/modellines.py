# SPDX-License-Identifier: Apache-2.0
"""Who waits for which model. Pure.

As long as all connected workers run one model, whoever names it, or none, waits in one place. While
they run several, or another than somebody was promised (a rolling change of the model), each model
that is asked for by name has lines of its own, from which only its workers take: an accepted
request waits for a worker that serves it, and no other is given what it would have to refuse.
"""

from collections.abc import Iterable

from gpuwarden.gateway.lines import Lines
from gpuwarden.gateway.work import Request, Seat, is_waiting


class ModelLines:
    """The waiting requests, by what may serve them.

    :param seats: the connected workers; looked at, never changed.
    :ivar main: those that any of the workers may serve.
    :ivar apart: those that not all of them may, by model.
    """

    def __init__(self, seats: dict[int, Seat]) -> None:
        self._seats = seats
        self.main = Lines()
        self.apart: dict[str, Lines] = {}

    def join(self, request: Request) -> None:
        """A request waits, in its old place if it had one."""
        model = request.model
        if model is None or all(seat.model == model for seat in self._seats.values()):
            self.main.join(request)
        else:
            self.apart.setdefault(model, Lines()).join(request)

    def sort(self, requests: Iterable[Request]) -> None:
        """A worker has come or gone: everybody finds their place again.

        :param requests: all that there are.
        """
        waiting = [request for request in requests if is_waiting(request)]
        if not self.apart and all(request.model is None for request in waiting):
            return
        self.main, self.apart = Lines(), {}
        for request in waiting:
            self.join(request)

    def in_turn(self) -> list[tuple[str | None, Lines]]:
        """The lines, with the model that their workers run (None: any), the oldest person first."""
        groups: list[tuple[str | None, Lines]] = [(None, self.main), *self.apart.items()]
        return sorted(groups, key=lambda group: group[1].oldest_person)
