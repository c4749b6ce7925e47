"""The cards as NVML lists them, asked in a child: a driver that hangs must not hang the boot."""

import json
import os
import select
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass

from gpuwarden.nvml.card import CardIdentity
from gpuwarden.nvml.errors import NvmlError
from gpuwarden.nvml.library import Session, choose_library

DEADLINE_SECONDS = 10.0  # the design's: a healthy driver answers within one, cold start included


class EnumerationError(Exception):
    """The cards could not be listed; the text says why and what to do.

    :ivar hung: whether the driver didn't answer at all (the cards may well be there).
    """

    def __init__(self, text: str, *, hung: bool = False) -> None:
        super().__init__(text)
        self.hung = hung


@dataclass(frozen=True, slots=True)
class Listing:
    """What the driver listed."""

    driver_version: str | None
    cards: list[CardIdentity]
    faults: list[str]


def list_cards() -> Listing:
    """Ask NVML, in this process. Raises NvmlError if the driver fails."""
    with Session(choose_library()) as session:
        enumeration = session.cards()
        return Listing(session.driver_version(), enumeration.cards, enumeration.faults)


def list_cards_in_child(
    deadline_seconds: float = DEADLINE_SECONDS, ask: Callable[[], Listing] = list_cards
) -> Listing:
    """Ask NVML in a forked child and wait no longer than the deadline.

    A fork, since the parent has neither threads nor a driver open, and a fresh interpreter would
    have to find its way to our own modules again.

    :raises EnumerationError: the driver failed, died or didn't answer in time.
    """
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiver)
        _answer(sender, ask)
    os.close(sender)
    try:
        answer = _read_until(receiver, time.monotonic() + deadline_seconds)
    finally:
        os.close(receiver)
    if answer is None:
        # SIGKILL may not end it (uninterruptible sleep); it is not waited for either.
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, os.WNOHANG)
        raise EnumerationError(
            f"the NVIDIA driver did not answer within {deadline_seconds:.0f} s: "
            "see journalctl -k for Xid messages; a reboot may be needed",
            hung=True,
        )
    os.waitpid(child, 0)
    return _understand(answer)


def _answer(sender: int, ask: Callable[[], Listing]) -> None:
    """The child's whole life: ask, answer, end without running the parent's exit handlers."""
    status = 1
    try:
        try:
            document: dict[str, object] = asdict(ask())
        except NvmlError as error:
            document = {"error": str(error)}
        with os.fdopen(sender, "w", encoding="utf-8") as stream:
            json.dump(document, stream)
        status = 0
    except Exception:  # noqa: BLE001 - a fork must never return into its parent's stack
        traceback.print_exc()
    finally:
        os._exit(status)


def _read_until(receiver: int, deadline: float) -> bytes | None:
    """All that comes until the end of the pipe; None if that doesn't come in time."""
    chunks: list[bytes] = []
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([receiver], [], [], left)[0]:
            return None
        chunk = os.read(receiver, 65536)
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)


def _understand(answer: bytes) -> Listing:
    try:
        document = json.loads(answer)
    except ValueError:
        raise EnumerationError(
            "the process that asked the NVIDIA driver for its cards died: see journalctl -k"
        ) from None
    if "error" in document:
        raise EnumerationError(document["error"])
    cards = [CardIdentity(**card) for card in document["cards"]]
    return Listing(document["driver_version"], cards, document["faults"])
