# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is: the next requests, and the worker that gets them. Pure.

- **Cards**: the card with least outstanding work first, then the worker with least, then the
  cooler card, then the worker that has rested longest; who comes alone while nobody has anything
  goes to the worker that has just answered, where batches take next to no time, for some requests.
- **Suspects**: people's first; each is given to an idle worker, and that worker gets nothing beside
  it; one worker at a time is enough for them while others wait for the rest.
- **Batches**: what is there and of one kind, within the worker's budget, and shared out where
  several workers idle; whether it waits for company says ``batching``, and only while no other
  worker idles.
- **Late**: whoever can't be answered in time any more comes after those who can.
- **Models**: who asks for one gets a worker that runs it (see ``modellines``).
- **Drained**: where no other is left, drained workers finish what people were promised; the
  background waits.
"""

from gpuwarden.gateway.batching import Batching
from gpuwarden.gateway.cards import Cards
from gpuwarden.gateway.foresight import answered_at
from gpuwarden.gateway.lines import Bounds, Lines
from gpuwarden.gateway.modellines import ModelLines
from gpuwarden.gateway.work import Request, Seat

Turn = tuple[Seat, list[Request]]


def next_turn(lines: ModelLines, cards: Cards, batching: Batching, now: float) -> Turn | None:
    """The next batch and its worker; None where nobody waits, or nobody has room."""
    if not lines.apart:
        return turn_of(lines.main, None, cards, batching, now)
    for model, group in lines.in_turn():
        turn = turn_of(group, model, cards, batching, now)
        if turn is not None:
            return turn
    return None


def turn_of(
    lines: Lines, model: str | None, cards: Cards, batching: Batching, now: float
) -> Turn | None:
    """The same for those who wait for one model; None: for any."""
    if not (seats := cards.with_room(now, model)):
        return None
    if not batching.rules.linger_seconds and (lone := lines.take_lone()) is not None:
        return next_seat(seats, cards, alone=True), [lone]  # as below, in a quarter of the steps
    ordinary = lines.has_people or (lines.has_background and cards.any_usable)
    suspect = lines.first_suspect()
    if suspect is not None and (cards.any_usable or not suspect.background):
        by_load = cards.by_load(model)
        seats = [seat for seat in by_load if seat in seats]
        if is_suspects_turn(suspect, cards, by_load, now, others_wait=ordinary):
            idle = next((seat for seat in seats if not seat.batches), None)
            if idle is not None:
                return idle, [lines.take_suspect()]
            # The least loaded gets nothing more until it is idle.
            seats = [seat for seat in seats if seat is not by_load[0]]
    if not ordinary or not seats:
        return None
    seat = next_seat(seats, cards, alone=lines.people < 2)
    card = cards[seat.card]
    size = 1 if seat.slots else min(card.batch_size(seat), seat.credit)
    if lines.may_exceed(size):
        lines.set_late_apart(answered_at(seat, card.batch_seconds, now))
    bounds = Bounds(
        share_of(size, lines, seats), seat.budget.least(batching.rules.budget), seat.mixed
    )
    background = not lines.has_background or cards.any_usable
    if batching.rules.linger_seconds and all(one.batches for one in seats if one is not seat):
        batch = lines.incomplete(bounds, with_background=background)
        if batch and batching.holds_back(batch, now):
            return None
    return seat, lines.take(bounds, with_background=background)


def next_seat(seats: list[Seat], cards: Cards, *, alone: bool) -> Seat:
    """Whose turn it is of the workers that have room; mostly it is the one that just answered."""
    return seats[0] if len(seats) == 1 else min(seats, key=cards.load_key(alone=alone))


def share_of(size: int, lines: Lines, seats: list[Seat]) -> int:
    """How many of the people who wait a worker gets: no more than its part where others idle."""
    if lines.people < 2:
        return size  # there is nothing to share out
    idle = sum(not seat.batches for seat in seats)
    return size if idle < 2 or not lines.has_people else min(size, -(-lines.people // idle))


def is_suspects_turn(
    suspect: Request, cards: Cards, by_load: list[Seat], now: float, *, others_wait: bool
) -> bool:
    """Whether an idle worker is a suspect's; while others wait, only one who can be answered."""
    if not (others_wait and by_load):
        return True
    least = answered_at(by_load[0], cards[by_load[0].card].batch_seconds, now)
    return not cards.have_quarantine and suspect.deadline >= least
