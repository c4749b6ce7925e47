# SPDX-License-Identifier: Apache-2.0
"""What a thermal guard is asked over its control socket, and what it answers."""

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from gpuwarden.config import Configuration, ConfigurationError
from gpuwarden.control import requests
from gpuwarden.control.lease import Lease
from gpuwarden.control.requests import (
    HISTORY_ROWS_LIMIT,
    HistoryAnswer,
    HistoryRequest,
    OverrideRequest,
    ReleaseRequest,
    ThermalStatusAnswer,
)
from gpuwarden.control.snapshot import boot_id, boottime_nanoseconds
from gpuwarden.control.socket import ControlError, Document, Handler
from gpuwarden.thermal.guard import ThermalGuard
from gpuwarden.thermal.rules import options_for, rules_for
from gpuwarden.thermal.thresholds import ThresholdsError

Asked = TypeVar("Asked", bound=requests.Request)


class Orders:
    """Answers for one guard.

    :param load: reads the configuration that was accepted.
    """

    def __init__(self, guard: ThermalGuard, load: Callable[[], Configuration]) -> None:
        self._guard = guard
        self._load = load

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """By the name of the request."""
        return {
            requests.STATUS: self._status,
            requests.HISTORY: self._history,
            requests.OVERRIDE: self._override,
            requests.CLEAR_OVERRIDE: self._clear_override,
            requests.RELEASE: self._release,
            requests.RELOAD: self._reload,
        }

    def _status(self, request: Document) -> Document:
        guard = self._guard
        thresholds = guard.mind.thresholds
        answer = ThermalStatusAnswer(
            data=guard.data(),
            policy=guard.mind.policy_name,
            memory_alert_celsius=thresholds.memory_alert_celsius if thresholds else None,
            memory_critical_celsius=thresholds.memory_critical_celsius if thresholds else None,
            override=guard.lease.shown if guard.lease else None,
            events=list(guard.chronicle.events),
        )
        return answer.model_dump(mode="json")

    def _history(self, request: Document) -> Document:
        asked = _parse(HistoryRequest, request)
        rows, more = self._guard.history.after(asked.after_unix_microseconds, HISTORY_ROWS_LIMIT)
        return HistoryAnswer(rows=rows, more=more).model_dump(mode="json")

    def _override(self, request: Document) -> Document:
        asked = _parse(OverrideRequest, request)
        return self._lend(asked.state, asked.seconds)

    def _release(self, request: Document) -> Document:
        return self._lend("released", _parse(ReleaseRequest, request).seconds)

    def _clear_override(self, request: Document) -> Document:
        self._guard.end_lease("cleared")
        return {}

    def _lend(self, state: Any, seconds: int) -> Document:
        lease = Lease(
            boot_id=boot_id(),
            uuid=self._guard.view.card.uuid,
            state=state,
            until_boottime_nanoseconds=boottime_nanoseconds() + seconds * 10**9,
            until_unix_microseconds=time.time_ns() // 1000 + seconds * 10**6,
        )
        try:
            self._guard.lend(lease)
        except OSError as error:
            raise ControlError("Failed", f"it can't be kept: {error.strerror}") from error
        return lease.shown.model_dump(mode="json")

    async def _reload(self, request: Document) -> Document:
        try:
            configuration = self._load()
        except ConfigurationError as error:
            raise ControlError("Failed", str(error)) from error
        uuid = self._guard.view.card.uuid
        try:
            await self._guard.reconfigure(
                rules_for(configuration, uuid),
                options_for(configuration, uuid),
                1 / configuration.thermal.sample_hertz,
            )
        except ThresholdsError as error:
            raise ControlError("InvalidArgument", str(error)) from error
        return {}


def _parse(model: type[Asked], request: Document) -> Asked:
    try:
        return model.model_validate(request)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'request'}: {problem['msg']}"
            for problem in error.errors()
        )
        raise ControlError("InvalidArgument", problems) from None
