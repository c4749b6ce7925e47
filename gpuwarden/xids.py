# SPDX-License-Identifier: Apache-2.0
"""What NVIDIA's XIDs mean for whoever runs workers on the card: try again, reset it, reboot."""

from enum import StrEnum


class XidClass(StrEnum):
    """What an XID asks for."""

    IGNORE = "ignore"
    APPLICATION = "application"
    RESET = "reset"
    REBOOT = "reboot"


# NVIDIA's catalogue of XIDs, its column "immediate action" (RESTART_APP, RESET_GPU, RESTART_BM,
# IGNORE), as gpud's generated copy has it. 48 is a workflow there: it ends in a reset. 45 follows
# the end of any process, 154 says that the card's own recovery action has changed.
XIDS: dict[int, tuple[XidClass, str]] = {
    8: (XidClass.APPLICATION, "the card stopped processing a program"),
    13: (XidClass.APPLICATION, "a program's fault in the graphics engine"),
    31: (XidClass.APPLICATION, "a program's access to memory that is not its own"),
    43: (XidClass.IGNORE, "a program was stopped by the card for its own fault"),
    45: (XidClass.IGNORE, "the driver cleaned up after a program"),
    46: (XidClass.RESET, "the card stopped processing"),
    48: (XidClass.RESET, "a memory error that could not be corrected"),
    62: (XidClass.RESET, "the card's internal controller halted"),
    63: (XidClass.IGNORE, "a row of its memory was set aside for a spare one"),
    64: (XidClass.RESET, "a row of its memory could not be set aside"),
    79: (XidClass.REBOOT, "the card has fallen off the bus"),
    92: (XidClass.IGNORE, "many corrected memory errors"),
    94: (XidClass.APPLICATION, "a memory error that hit one program alone"),
    95: (XidClass.RESET, "a memory error that hit every program on the card"),
    109: (XidClass.RESET, "the card could not switch between programs"),
    119: (XidClass.RESET, "the card's system processor does not answer"),
    120: (XidClass.RESET, "the card's system processor failed"),
    140: (XidClass.RESET, "an unrecovered memory error"),
    143: (XidClass.RESET, "the card failed to start"),
    154: (XidClass.IGNORE, "the card's recovery action has changed"),
}


def xid_class(xid: int) -> XidClass:
    """What an XID asks for; one that is not known says nothing that would stop a worker."""
    return XIDS[xid][0] if xid in XIDS else XidClass.IGNORE


def describe_xid(xid: int) -> str:
    """``XID 79 (the card has fallen off the bus)``."""
    return f"XID {xid} ({XIDS[xid][1]})" if xid in XIDS else f"XID {xid}"
