# SPDX-License-Identifier: Apache-2.0
"""Where the exported values come from."""

from typing import Protocol

from gpuwarden.control.states import GuardData


class Source(Protocol):
    """The service's state as last put together; asked at each read, so it must be cheap."""

    def status(self) -> GuardData:
        """The state now; never waits, never fails."""
