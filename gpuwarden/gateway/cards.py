# SPDX-License-Identifier: Apache-2.0
"""What each card may be given now: by its heat, and by how much it has worked. Pure."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from gpuwarden.gateway.duty import DutyMeter
from gpuwarden.gateway.statistics import moved
from gpuwarden.gateway.work import ECO, Batch, CardLimits, Seat
from gpuwarden.values import ThermalState

# A worker that has just answered is the fastest: its code is in the processor's caches still, which
# is a tenth of a small request's time. So where a batch takes next to no time it keeps its turn.
QUICK_SECONDS = 0.005
TURN = 64  # of the queue's numbers; a lone request takes two


class Card:
    """One card: its limits, and its account of work and rest.

    A card of which nothing is known is in eco.

    :ivar batch_seconds: moving average of a batch's time on it; None before the first.
    """

    def __init__(self) -> None:
        self.limits = ECO
        self.warmth = warmth_of(ECO)
        self.batch_seconds: float | None = None
        self._meter = DutyMeter()

    def limit(self, limits: CardLimits, now: float) -> None:
        """Go by other limits from now on."""
        self.limits, self.warmth = limits, warmth_of(limits)
        self._meter.set_duty(limits.duty, now)

    def set_running(self, batches: int, now: float) -> None:
        """So many batches run on it from now on."""
        self._meter.set_running(batches, now)

    def batch_ended(self, started: float, gpu_seconds: float | None, now: float) -> None:
        """A batch, or a part of one, was answered (see DutyMeter)."""
        if gpu_seconds is not None:
            self.batch_seconds = moved(self.batch_seconds, gpu_seconds)
        self._meter.batch_ended(started, gpu_seconds, now)

    def takes(self, seat: Seat, now: float) -> bool:
        """Whether this worker on it may be given something, as far as the card is concerned."""
        if self.limits.paused:
            return False
        if not seat.slots:
            return self._meter.permits(len(seat.batches), now)
        limit = self._limit(seat)
        return (limit is None or seat.outstanding < limit) and self._meter.permits(0, now)

    def batch_size(self, seat: Seat) -> int:
        """Requests that this worker may run together."""
        limit = self._limit(seat)
        return seat.max_batch if limit is None else min(seat.max_batch, limit)

    def _limit(self, seat: Seat) -> int | None:
        """What its heat allows, or less where the worker is short of memory."""
        limit, ceiling = self.limits.batch_limit, seat.ceiling
        return limit if ceiling is None else min(limit or ceiling, ceiling)

    @property
    def is_quick(self) -> bool:
        """Whether its batches take next to no time."""
        return self.batch_seconds is not None and self.batch_seconds < QUICK_SECONDS

    def rested_at(self) -> float | None:
        """When it may be given work again; None if that doesn't hang on its rest."""
        return None if self.limits.paused else self._meter.rested_at()


def warmth_of(limits: CardLimits) -> tuple[float, float]:
    """The larger, the less a card should be given, of those that are equally busy."""
    limit = limits.batch_limit
    return -limits.duty, 0.0 if limit is None else 1 / limit


class Cards:
    """All cards that workers were seen on, over all connected workers.

    :param seats: the connected workers; looked at, never changed.
    """

    def __init__(self, seats: dict[int, Seat]) -> None:
        self._seats = seats
        self._cards: defaultdict[int, Card] = defaultdict(Card)

    def __getitem__(self, number: int) -> Card:
        return self._cards[number]

    def told(self, seat: Seat) -> tuple[int, ThermalState]:
        """What a worker is told of its card: requests it may run together, the card's state."""
        card = self[seat.card]
        return card.batch_size(seat), card.limits.state

    def count(self, number: int, now: float) -> None:
        """Note how many batches run on a card."""
        running = 0
        for seat in self._seats.values():
            if seat.card == number and seat.batches:
                running += len(seat.begun) if seat.slots else 1
        self[number].set_running(running, now)

    def workers_of(self, number: int) -> list[Seat]:
        """The connected workers of a card."""
        return [seat for seat in self._seats.values() if seat.card == number]

    def charge(self, seat: Seat, batch: Batch, gpu_seconds: float | None, now: float) -> None:
        """For what is answered of a batch; what is left of it, or was passed, begins anew."""
        first = batch if seat.slots else next(iter(seat.batches.values()))
        if first.started is not None:
            self[seat.card].batch_ended(first.started, gpu_seconds, now)
            first.started = first.started if gpu_seconds is None else None

    def not_begun(self, number: int) -> list[Batch]:
        """What a card's workers have not begun, for another card or a cooler time."""
        return [batch for seat in self.workers_of(number) for batch in seat.not_begun]

    def to_make_way(self, model: str | None) -> list[Batch]:
        """One background batch that has not begun, if any: its worker takes a person's instead."""
        for seat in reversed(self.by_load(model)):
            for batch in seat.not_begun:
                if batch.is_background:
                    return [batch]
        return []

    def is_usable(self, seat: Seat) -> bool:
        """Whether a worker serves, may get new work, and its card is not paused."""
        return seat.serving and not seat.drained and not self._cards[seat.card].limits.paused

    @property
    def any_usable(self) -> bool:
        """Whether there is a worker that can be given requests."""
        return any(map(self.is_usable, self._seats.values()))

    def usable(self, model: str | None = None) -> list[Seat]:
        """The workers that can be given requests, now or after a rest.

        :param model: of those that run it; None: of all.
        """
        return [seat for seat in self._with(model) if self.is_usable(seat)]

    def last_resort(self, model: str | None = None) -> list[Seat]:
        """Drained workers, where no other is left: what was accepted before is theirs to finish."""
        if self.usable(model):
            return []
        seats = self._with(model)
        return [one for one in seats if one.serving and not self[one.card].limits.paused]

    def _with(self, model: str | None) -> Iterable[Seat]:
        seats = self._seats.values()
        return seats if model is None else [seat for seat in seats if seat.model == model]

    @property
    def credits(self) -> dict[int, int]:
        """Requests that each card's workers would still take."""
        found: Counter[int] = Counter()
        for seat in self._seats.values():
            found[seat.card] += seat.credit if seat.serving and not seat.drained else 0
        return dict(sorted(found.items()))

    def with_room(self, now: float, model: str | None = None) -> list[Seat]:
        """Those that may be given a batch now."""
        seats = self.usable(model) or self.last_resort(model)
        return [seat for seat in seats if seat.open and self._cards[seat.card].takes(seat, now)]

    @property
    def have_quarantine(self) -> bool:
        """Whether a suspect is in any worker."""
        return any(seat.exclusive for seat in self._seats.values())

    def by_load(self, model: str | None = None) -> list[Seat]:
        """They in the order in which they are given some: the queue's "Cards"."""
        return sorted(self.usable(model) or self.last_resort(model), key=self.load_key())

    def load_key(self, *, alone: bool = False) -> Callable[[Seat], tuple[object, ...]]:
        """What that order goes by, as things stand.

        :param alone: nobody else waits.
        """
        cards, seats = self._cards, self._seats.values()
        if not any(seat.batches for seat in seats):  # nobody has anything
            turn = TURN if alone and all(cards[seat.card].is_quick for seat in seats) else 1
            return lambda one: (cards[one.card].warmth, one.last_used // turn, -one.last_used)
        load: dict[int, int] = {}
        own: dict[int, int] = {}
        for seat in seats:
            own[seat.key] = seat.outstanding
            load[seat.card] = load.get(seat.card, 0) + own[seat.key]
        return lambda seat: (
            load[seat.card],
            own[seat.key],
            cards[seat.card].warmth,
            seat.last_used,
        )

    def next_rested(self) -> float | None:
        """When the first card has rested that has a worker with room."""
        for card in self._cards.values():
            if card.limits.duty < 1:
                break
        else:
            return None
        seats = self.usable() or self.last_resort()
        rested = [self[seat.card].rested_at() for seat in seats if seat.open]
        return min((when for when in rested if when is not None), default=None)

    @property
    def too_hot(self) -> bool:
        """Whether it is for the heat alone that no worker can be given anything."""
        if any(seat.serving and not seat.drained for seat in self._seats.values()):
            return not self.usable()
        return bool(self._cards) and all(card.limits.paused for card in self._cards.values())

    @property
    def capacity(self) -> float:
        """Requests that the workers take at once, on average over time."""
        cards = [(seat, self[seat.card]) for seat in self.usable()]
        return sum(card.batch_size(seat) * card.limits.duty for seat, card in cards)
