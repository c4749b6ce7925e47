# SPDX-License-Identifier: Apache-2.0
"""Who may have killed a worker. Pure.

A batch that died is suspect: its members are retried alone, so that one poisonous image can't use
up its neighbours' attempts, and only a death while alone counts. A worker with slots takes its
requests in one after the other, or in small groups, and says so: if it dies while one joins, that
one did it, and those that ran beside it are no suspects, as those never are that it only prepared
while others ran. If it dies while a group joins, or in a
step of several, these are tried again together, once: a card's fault or a kill from outside is far
likelier than that one of them did it, and one by one they would keep everybody waiting for as long
as it takes to load the model.
"""

from gpuwarden.gateway.work import Request, Seat

SOLO_DEATH_LIMIT = 3  # deaths of a worker while alone in it, until a request is given up
FORGIVEN_DEATHS = 1  # of a worker with slots, of several that were tried again together


def spread_blame(seat: Seat) -> None:
    """Note in the requests of a worker that died what that says of them."""
    if seat.draining:
        return
    batches = (seat.slots and seat.begun) or list(seat.batches.values())
    held = [request for batch in batches for request in batch.awaited]
    suspects = [one for one in held if one.joining] or held
    is_only = sum(len(batch.leases) for batch in batches) == 1
    alone = len(suspects) == 1 and (suspects[0].joining or is_only)
    is_shared = seat.slots and len(suspects) > 1
    for request in suspects:
        request.shared_deaths += is_shared
        if not is_shared or request.shared_deaths > FORGIVEN_DEATHS:
            request.suspect = True
        request.solo_deaths += alone


def is_given_up(request: Request) -> bool:
    """Whether it has had its last attempt."""
    return request.solo_deaths >= SOLO_DEATH_LIMIT
