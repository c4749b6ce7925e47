# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden-sim.service``: arguments, cards.json, then the daemon."""

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from gpuwarden.simulator import places
from gpuwarden.simulator.configuration import CardsError, load_cards
from gpuwarden.simulator.daemon import Daemon
from gpuwarden.systemd.journal import set_up_logging
from gpuwarden.systemd.notify import Notifier
from gpuwarden.worker.pauses import settle_memory

log = logging.getLogger(__name__)

DEFAULT_HERTZ = 10.0
EXIT_CONFIGURATION = 78  # EX_CONFIG: a restart won't help


def main(argv: list[str]) -> int:
    """Run the simulator until it is told to stop; its exit status."""
    arguments = parse_arguments(argv)
    set_up_logging("info")
    notifier = Notifier()
    if Path("/proc/driver/nvidia/version").exists():
        log.error("a real NVIDIA driver is loaded here: no simulation beside it")
        return EXIT_CONFIGURATION
    try:
        cards = load_cards(arguments.cards)
    except CardsError as error:
        notifier.status(str(error))
        log.error("%s", error)
        return EXIT_CONFIGURATION
    settle_memory()
    try:
        arguments.run_directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        asyncio.run(Daemon(cards, arguments.run_directory, arguments.hertz, notifier).run())
    except OSError as error:
        notifier.status(f"can't simulate: {error}")
        log.error("can't simulate in %s: %s", arguments.run_directory, error)
        return 1
    return 0


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Options, all with defaults for the installed service."""
    parser = argparse.ArgumentParser(prog="gpuwarden-simulator", description=__doc__)
    parser.add_argument("--cards", type=Path, default=places.CARDS_FILE)
    parser.add_argument("--run-directory", type=Path, default=places.RUN_DIRECTORY)
    parser.add_argument("--hertz", type=hertz, default=DEFAULT_HERTZ, help="physics steps a second")
    return parser.parse_args(argv)


def hertz(text: str) -> float:
    """A rate between 1 and 100 a second."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 1 <= value <= 100:
        raise argparse.ArgumentTypeError(f"must be 1 to 100 (found {text})")
    return value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
