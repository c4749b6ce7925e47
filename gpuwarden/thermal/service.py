# SPDX-License-Identifier: Apache-2.0
"""medgemma-thermal@N: samples card N, decides, cools it, publishes. One process a card, no D-Bus.

The loop never calls the driver: a thread does, and may be lost there. The watchdog is fed only
while calls come back.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from gpuwarden import names
from gpuwarden.config import Configuration, ConfigurationError, effective_configuration
from gpuwarden.control.lease_store import LeaseStore
from gpuwarden.control.socket import ControlServer, serve
from gpuwarden.nvml.library import choose_library
from gpuwarden.systemd.activation import take_sockets
from gpuwarden.systemd.journal import set_up_logging
from gpuwarden.systemd.lifetime import until_terminated
from gpuwarden.thermal.card import GuardedCard
from gpuwarden.thermal.guard import ThermalGuard
from gpuwarden.thermal.orders import Orders
from gpuwarden.thermal.originals_store import Places as OriginalsPlaces
from gpuwarden.thermal.rules import card_uuid, options_for, rules_for

log = logging.getLogger(__name__)

CONTROL_SOCKET = "control"  # FileDescriptorName= of medgemma-thermal@.socket


@dataclass(frozen=True)
class Places:
    """Where everything lies; the defaults are the contract's."""

    load: Callable[[], Configuration] = effective_configuration
    plan_file: Path = names.PLAN_FILE
    snapshot_file: Callable[[int], Path] = names.thermal_snapshot_file
    lease_file: Callable[[int], Path] = names.thermal_lease_file
    originals: OriginalsPlaces = field(default_factory=OriginalsPlaces)


def main(argv: list[str], places: Places | None = None) -> int:
    """Guard the card whose index is ``argv[0]``, until SIGTERM."""
    places = places or Places()
    set_up_logging("info")
    if len(argv) != 1 or not (argv[0].isascii() and argv[0].isdigit()):
        log.error("thermal takes one argument, the card's index; found %r", " ".join(argv))
        return 2
    asyncio.run(_serve(int(argv[0]), places))
    return 0


async def _serve(index: int, places: Places) -> None:
    configuration, note = _configuration(places)
    logging.getLogger().setLevel(configuration.log.level.upper())
    library = choose_library()
    if library.note:
        log.warning("%s", library.note)
    if library.simulated:
        log.warning("SIMULATED: GPU %d is the simulator's", index)
    uuid = card_uuid(places.plan_file, index)
    card = GuardedCard(
        index,
        places.plan_file,
        library,
        options=options_for(configuration, uuid),
        places=places.originals,
    )
    guard = ThermalGuard(
        index,
        card,
        places.snapshot_file(index),
        LeaseStore(places.lease_file(index)),
        rules_for(configuration, uuid),
        sample_seconds=1 / configuration.thermal.sample_hertz,
        note=note,
        simulated=library.simulated,
    )
    orders = Orders(guard, places.load)
    server = await _answer(orders)
    try:
        await until_terminated(guard.run(), guard.stop)
    finally:
        if server is not None:
            await server.close()


async def _answer(orders: Orders) -> ControlServer | None:
    """Take orders on the socket that systemd holds; without one there are none to take."""
    passed = take_sockets().get(CONTROL_SOCKET)
    if not passed:
        log.warning("no control socket: overrides, history and reload can't be asked for")
        return None
    return await serve(passed[0], orders.handlers)


def _configuration(places: Places) -> tuple[Configuration, str]:
    """The configuration, or the defaults and the reason: a bad file never stops the cooling."""
    try:
        return places.load(), ""
    except ConfigurationError as error:
        problems = "; ".join(str(error).splitlines())
        log.error("the configuration was refused, the defaults hold: %s", problems)
        return Configuration(), "the configuration was refused, the defaults hold"
