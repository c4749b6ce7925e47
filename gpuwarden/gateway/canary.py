# SPDX-License-Identifier: Apache-2.0
"""The guard's question whether a worker's card still answers it."""

from collections.abc import Callable, Iterable
from typing import Any

from pydantic import ValidationError

from gpuwarden.control.requests import CANARY, CanaryAnswer, CanaryRequest
from gpuwarden.control.socket import ControlError, Handler
from gpuwarden.gateway.link import WorkerLink
from gpuwarden.gateway.probe import NoAnswerError


class Canary:
    """Has a worker ask its card something tiny.

    :param links: the connected workers.
    """

    def __init__(self, links: Callable[[], Iterable[WorkerLink]]) -> None:
        self._links = links

    def handlers(self) -> dict[str, Handler]:
        """The requests that it answers."""
        return {CANARY: self.ask}

    async def ask(self, document: dict[str, Any]) -> dict[str, Any]:
        """The worker's word. Raises ControlError where there is no such worker."""
        try:
            number = CanaryRequest.model_validate(document).number
        except ValidationError as error:
            raise ControlError("InvalidArgument", f"canary: {error.errors()[0]['msg']}") from error
        link = next((each for each in self._links() if each.number == number), None)
        if link is None:
            raise ControlError("Unavailable", f"worker {number} is not connected")
        try:
            probed = await link.probes.ask()
        except NoAnswerError as error:
            answer = CanaryAnswer(pid=link.peer.pid, outcome="silent", detail=str(error))
        else:
            answer = CanaryAnswer(
                pid=link.peer.pid, outcome=probed.outcome, detail=probed.detail[:500]
            )
        return answer.model_dump()
