# SPDX-License-Identifier: Apache-2.0
"""Big bodies come in one after the other: who began first is served first.

Side by side, 32 callers who send 32 MiB each would all be through at the end of all; one after the
other, a worker has the first while the others come. Whoever sends slower than this process takes
waits for nobody, and keeps nobody waiting. Those who are read and send fast are read by threads.
"""

import asyncio
from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, field

from gpuwarden.gateway.hands import HANDS, new_hands

ABREAST = HANDS  # of those who send as fast as they can
PRESSING_BYTES = 128 << 10  # in one reading: more than a slow line brings between two
STALL_SECONDS = 0.02  # without a byte: it presses no more


@dataclass(eq=False)
class Sender:
    """One whose body is coming.

    :ivar heard_at: when its last bytes came, or when it was allowed to go on.
    :ivar pressing: it sends faster than it is read.
    :ivar carried: a thread reads from it, and the transport doesn't.
    """

    transport: asyncio.Transport
    heard_at: float
    pressing: bool = False
    paused: bool = False
    carried: bool = False


@dataclass
class Lanes:
    """All senders of big bodies, the first first.

    :ivar hands: the threads that read from some of them.
    """

    hands: Executor = field(default_factory=new_hands)
    _senders: list[Sender] = field(default_factory=list)
    _timer: asyncio.TimerHandle | None = None

    def enter(self, transport: asyncio.Transport) -> Sender:
        """One more begins."""
        sender = Sender(transport, _now())
        self._senders.append(sender)
        return sender

    def heard(self, sender: Sender, length: int) -> None:
        """So many bytes of it came in one reading."""
        sender.heard_at = _now()
        sender.pressing = length >= PRESSING_BYTES
        if sender.pressing and len(self._senders) > ABREAST:
            self._arrange()

    def pick_up(self, sender: Sender) -> bool:
        """Whether a thread may read from it, until it is put down: it presses, and is its turn."""
        carried = sum(one.carried for one in self._senders)
        if sender.carried or sender.paused or not sender.pressing or carried >= HANDS:
            return False
        sender.carried = True
        sender.transport.pause_reading()
        return True

    def put_down(self, sender: Sender) -> None:
        """No thread reads from it any more; its transport does, unless it has to wait."""
        sender.carried = False
        if not sender.paused:
            sender.transport.resume_reading()

    def leave(self, sender: Sender) -> None:
        """It is through, or has gone. Nothing happens if it has left already."""
        if sender in self._senders:
            self._senders.remove(sender)
            self._let(sender, reading=True)
            self._arrange()

    def _arrange(self) -> None:
        now = _now()
        readers = who_reads(self._senders, now)
        for sender in self._senders:
            self._let(sender, reading=sender in readers)
        if self._timer is None and any(sender.paused for sender in self._senders):
            self._timer = asyncio.get_running_loop().call_later(STALL_SECONDS, self._look_again)

    def _look_again(self) -> None:
        self._timer = None
        self._arrange()

    def _let(self, sender: Sender, *, reading: bool) -> None:
        if sender.paused != reading:
            return
        sender.paused = not reading
        if sender.carried:
            return
        if reading:
            sender.heard_at = _now()
            sender.transport.resume_reading()
        else:
            sender.transport.pause_reading()


def who_reads(senders: Iterable[Sender], now: float) -> list[Sender]:
    """Those who may go on, of senders in the order in which they began. Pure."""
    readers, room = [], ABREAST
    for sender in senders:
        is_fast = sender.pressing and now - sender.heard_at < STALL_SECONDS
        presses = sender.paused or sender.carried or is_fast
        if presses and room <= 0:
            continue
        room -= presses
        readers.append(sender)
    return readers


def _now() -> float:
    return asyncio.get_running_loop().time()
