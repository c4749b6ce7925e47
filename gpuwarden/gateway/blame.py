"""Who may have killed a worker. Pure.

A batch that died is suspect: its members are retried alone, so that one poisonous image can't use
up its neighbours' attempts, and only a death while alone counts. A worker with slots takes its
requests in one after the other and says so: if it dies while one joins, that one did it, and those
that ran beside it are no suspects.
"""

from gpuwarden.gateway.work import Request, Seat

SOLO_DEATH_LIMIT = 3  # deaths of a worker while alone in it, until a request is given up


def spread_blame(seat: Seat) -> None:
    """Note in the requests of a worker that died what that says of them."""
    if seat.draining:
        return
    held = seat.awaited
    suspects = [one for one in held if one.joining] or held
    alone = len(suspects) == 1 and (suspects[0].joining or seat.outstanding == 1)
    for request in suspects:
        request.suspect = True
        request.solo_deaths += alone


def is_given_up(request: Request) -> bool:
    """Whether it has had its last attempt."""
    return request.solo_deaths >= SOLO_DEATH_LIMIT
