# SPDX-License-Identifier: Apache-2.0
"""Where the simulator keeps its things; everything in /run dies with the boot, as limits do."""

from pathlib import Path

RUN_DIRECTORY = Path("/run/gpuwarden-sim")
CARDS_FILE = Path("/etc/gpuwarden-simulator/cards.json")

STATE_NAME = "state"
ATTACH_SOCKET_NAME = "attach.sock"
CONTROL_SOCKET_NAME = "control.sock"
FROZEN_NAME = "frozen"  # mount point of the file system that `fault hang` freezes

# What a program that uses a card has open, as it has /dev/nvidia0 of a real one.
DEVICE_PREFIX = "card-"

CONTROL_SOCKET = RUN_DIRECTORY / CONTROL_SOCKET_NAME


def device_file(directory: Path, uuid: str) -> Path:
    """The card's device, a file here."""
    return directory / f"{DEVICE_PREFIX}{uuid}"
