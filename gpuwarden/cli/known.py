# SPDX-License-Identifier: Apache-2.0
"""A status, and where it comes from. Pure."""

from dataclasses import dataclass

from gpuwarden.control.states import GuardData


@dataclass(frozen=True)
class Origins:
    """Where each part of a status comes from and how old it is, in words; empty: from a live one.

    :ivar rest: what the supervisor alone knows: orphans, events, host.
    """

    workers: str = ""
    cards: str = ""
    gateway: str = ""
    rest: str = ""


@dataclass(frozen=True)
class Known:
    """A status and, when it doesn't come from the running service, where it comes from.

    :ivar is_down: the supervisor is not running, as far as can be seen.
    :ivar is_mended: the configuration that the supervisor refused is right now, as it lies there.
    """

    data: GuardData
    caveat: str = ""
    is_down: bool = False
    origins: Origins = Origins()
    is_mended: bool = False

    @property
    def is_live(self) -> bool:
        """Whether the running service has just said so."""
        return not self.caveat
