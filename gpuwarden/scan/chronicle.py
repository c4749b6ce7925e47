# SPDX-License-Identifier: Apache-2.0
"""What a scan tells the journal: when it goes blind, and when memory is held by nobody known."""

import logging

from gpuwarden.control.states import Holder, ScanData
from gpuwarden.systemd.events import Event, tell

MIB = 2**20


class Chronicle:
    """Tells what has changed of one card."""

    def __init__(self, gpu_index: int) -> None:
        self._gpu_index = gpu_index
        self._trouble = ""
        self._hidden: frozenset[int] = frozenset()
        self._is_unexplained = False

    def changed(self, before: ScanData, now: ScanData) -> None:
        """Tell what is new in ``now``."""
        if now.state == "released":
            return  # its thermal guard tells
        if now.problem != before.problem or now.state != before.state:
            self._tell_trouble(now)
        if now.state == "scanning":
            self._tell_hidden(now)

    def _tell_trouble(self, now: ScanData) -> None:
        if now.problem:
            text = f"who holds its memory is not known: {now.problem}"
            self._tell(Event.SCAN_BLIND, text, logging.WARNING, now, REASON=now.problem)
        elif self._trouble:
            text = "who holds its memory is known again"
            self._tell(Event.SCAN_SEES, text, logging.INFO, now)
        self._trouble = now.problem

    def _tell_hidden(self, now: ScanData) -> None:
        hidden = [each for each in now.holders if each.holder_class == "hidden"]
        for each in hidden:
            if each.pid not in self._hidden:
                self._tell(Event.SCAN_HIDDEN, _describe(each), logging.WARNING, now)
        self._hidden = frozenset(each.pid for each in hidden)
        if now.unexplained_bytes and not self._is_unexplained:
            size = now.unexplained_bytes // MIB
            text = f"{size} MiB of its memory are in use, and nobody was found who holds them"
            self._tell(Event.SCAN_UNEXPLAINED, text, logging.WARNING, now)
        self._is_unexplained = bool(now.unexplained_bytes)

    def _tell(self, event: Event, text: str, level: int, now: ScanData, **fields: object) -> None:
        message = f"GPU {self._gpu_index}: {text}"
        tell(event, message, level, GPU=self._gpu_index, GPU_UUID=now.gpu_uuid, **fields)


def _describe(each: Holder) -> str:
    place = f", {each.unit}" if each.unit else ""
    return (
        f"memory is held by {each.command} (PID {each.pid}{place}), which the driver does not list"
    )
