# SPDX-License-Identifier: Apache-2.0
"""One vocabulary for what NVML answers when it doesn't answer: what, where, what to do."""

from typing import Final


class NvmlError(Exception):
    """NVML refused a call.

    :ivar meaning: what went wrong, in words.
    :ivar where: the call and the card.
    :ivar advice: what an operator can do about it; empty where nothing can be done.
    :ivar code: NVML's own number, None where no call was made.
    """

    def __init__(self, meaning: str, where: str, advice: str = "", code: int | None = None) -> None:
        number = "" if code is None else f" (NVML {code})"
        super().__init__(f"{where}: {meaning}{number}" + (f"; {advice}" if advice else ""))
        self.meaning = meaning
        self.where = where
        self.advice = advice
        self.code = code


class CardLostError(NvmlError):
    """The card is not there, fell off the bus or waits for a reset."""


class NotSupportedError(NvmlError):
    """This card or this driver has no such reading; others work."""


class NoPermissionError(NvmlError):
    """The driver or the system denies it to this process."""


class NoDataError(NvmlError):
    """The driver knows the question but has no such thing at the moment."""


class DriverMissingError(NvmlError):
    """No NVIDIA driver: no library, or a library without a loaded kernel module."""


class DriverError(NvmlError):
    """The driver failed in any other way."""


# NVML's return codes (nvml.h, API 13): family, meaning, advice.
_CODES: Final[dict[int, tuple[type[NvmlError], str, str]]] = {
    1: (DriverError, "the driver library is not initialised", ""),
    2: (DriverError, "the driver calls an argument invalid", ""),
    3: (NotSupportedError, "not supported by this card", ""),
    4: (NoPermissionError, "permission denied", "run as root with CAP_SYS_ADMIN"),
    6: (NoDataError, "not found", ""),
    7: (DriverError, "the answer has more entries than were asked for", ""),
    8: (DriverError, "external power is missing", "check the card's power cables"),
    9: (
        DriverMissingError,
        "the NVIDIA kernel driver is not loaded",
        "install or load it (modprobe nvidia), see journalctl -k",
    ),
    10: (DriverError, "the driver timed out", "see journalctl -k for Xid messages"),
    11: (DriverError, "the card's interrupts fail", "see journalctl -k for Xid messages"),
    12: (
        DriverMissingError,
        "the driver's library libnvidia-ml.so.1 is not installed",
        "install the NVIDIA driver's user space (libnvidia-ml1)",
    ),
    13: (NotSupportedError, "this driver is too old for it", ""),
    14: (DriverError, "the card's infoROM is corrupted", "have the card replaced"),
    15: (CardLostError, "the card is lost", "reset it or reboot, see journalctl -k for Xid"),
    16: (CardLostError, "the card waits for a reset", "stop its users and run nvidia-smi -r"),
    17: (
        NoPermissionError,
        "the operating system blocks the card",
        "check DeviceAllow= of the unit and the device nodes /dev/nvidia*",
    ),
    18: (
        DriverError,
        "the library and the loaded kernel module are of different versions",
        "reboot: the driver was upgraded under a running module",
    ),
    19: (DriverError, "the card is in use", ""),
    20: (DriverError, "the driver is out of memory", ""),
    21: (NoDataError, "no data yet", ""),
    25: (NotSupportedError, "this driver speaks another version of the call", ""),
    26: (NotSupportedError, "this driver no longer has the call", ""),
    27: (NoDataError, "not ready yet", ""),
    28: (CardLostError, "no such card", "nvidia-smi -L lists the cards that are there"),
}
_UNKNOWN = (DriverError, "the driver failed without saying why", "see journalctl -k for Xid")


def translate(code: int, where: str) -> NvmlError:
    """The exception for NVML's return ``code`` at ``where`` (call and card)."""
    family, meaning, advice = _CODES.get(code, _UNKNOWN)
    return family(meaning, where, advice, code)
