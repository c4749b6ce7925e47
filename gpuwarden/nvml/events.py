# SPDX-License-Identifier: Apache-2.0
"""XIDs: what the driver reports about a card that misbehaves."""

import logging

from gpuwarden.nvml import calls
from gpuwarden.nvml.calls import Handle
from gpuwarden.nvml.errors import CardLostError, DriverMissingError, NotSupportedError, NvmlError

log = logging.getLogger(__name__)

XID_EVENT = 0x8  # nvml.h, nvmlEventTypeXidCriticalError
NO_EVENT_YET = 10  # NVML_ERROR_TIMEOUT, which is how nvmlEventSetWait says it
MOST_AT_ONCE = 32  # a card that reports without end must not hold the thread that cools it


class XidEvents:
    """The XIDs of one card since this was opened; earlier ones no driver delivers."""

    def __init__(self, where: str, handle: Handle) -> None:
        self._where = where
        self._handle = handle
        self._set: calls.Handle | None = None
        self._unsupported = False
        self._fails = False

    def drain(self) -> tuple[int, ...]:
        """What was reported since the last call, oldest first; never waits.

        A set of events that is lost is opened anew at the next call.

        :raises CardLostError: the card is gone.
        :raises DriverMissingError: the driver is.
        """
        if self._unsupported:
            return ()
        found: list[int] = []
        try:
            self._open()
            while self._set is not None and len(found) < MOST_AT_ONCE:
                data = calls.call(self._where, "nvmlEventSetWait_v2", self._set, 0)
                if data.eventType == XID_EVENT:
                    found.append(int(data.eventData))
        except NotSupportedError:
            self._unsupported = True
            self.close()
        except (CardLostError, DriverMissingError):
            self.close()
            if not found:  # what it said last is told first: the next call finds it lost as well
                raise
        except NvmlError as error:
            if error.code != NO_EVENT_YET:
                self._lose(error)
                return tuple(found)
        self._fails = False
        return tuple(found)

    def close(self) -> None:
        """Let go of the set; a set that died with its card can't even be freed."""
        events, self._set = self._set, None
        if events is not None:
            try:
                calls.call(self._where, "nvmlEventSetFree", events)
            except NvmlError as error:
                log.debug("%s: its event set was gone already: %s", self._where, error)

    def _lose(self, error: NvmlError) -> None:
        if not self._fails:
            log.warning("%s: its events can't be read: %s", self._where, error)
        self._fails = True
        self.close()

    def _open(self) -> None:
        if self._set is not None:
            return
        known = int(calls.call(self._where, "nvmlDeviceGetSupportedEventTypes", self._handle))
        if not known & XID_EVENT:
            self._unsupported = True
            return
        self._set = calls.call(self._where, "nvmlEventSetCreate")
        calls.call(
            self._where, "nvmlDeviceRegisterEvents", self._handle, known & XID_EVENT, self._set
        )
