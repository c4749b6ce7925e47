# SPDX-License-Identifier: Apache-2.0
"""Has the gateway give workers no new work, and keeps it told after a restart of either side."""

from gpuwarden import names
from gpuwarden.control.requests import DrainAnswer, DrainRequest, UndrainRequest
from gpuwarden.control.socket import ask_async
from gpuwarden.control.states import GatewayData
from gpuwarden.guard.jobs import Jobs

ANSWER_SECONDS = 5.0  # beside the wait that was asked for


class Drains:
    """The workers that are to be idle.

    :ivar wanted: their numbers.
    """

    def __init__(self, jobs: Jobs) -> None:
        self.wanted: set[int] = set()
        self._jobs = jobs

    async def drain(self, number: int, seconds: float) -> int:
        """Have a worker finish and get nothing new, for at most so long; what is left then.

        :raises ControlError: the gateway can't be asked.
        """
        self.wanted.add(number)
        request = DrainRequest(number=number, seconds=seconds).model_dump()
        answer = await ask_async(
            names.GATEWAY_CONTROL_SOCKET, request, timeout_seconds=seconds + ANSWER_SECONDS
        )
        return DrainAnswer.model_validate(answer).unanswered

    async def undrain(self, number: int) -> None:
        """Have a worker given work again. Raises ControlError; it is told again then."""
        self.wanted.discard(number)
        request = UndrainRequest(number=number).model_dump()
        await ask_async(names.GATEWAY_CONTROL_SOCKET, request, timeout_seconds=ANSWER_SECONDS)

    def retell(self, gateway: GatewayData | None) -> None:
        """Tell a gateway that knows otherwise: one of us has been restarted.

        Its state is up to a second old: what was told since is told twice then, which is no harm.
        """
        if gateway is None:
            return
        for number in sorted(self.wanted.difference(gateway.drained)):
            self._jobs.spawn(self._tell_drained(number), f"keep worker {number} drained")
        for number in sorted(set(gateway.drained) - self.wanted):
            self._jobs.spawn(self.undrain(number), f"give worker {number} work again")

    async def _tell_drained(self, number: int) -> None:
        if number in self.wanted:
            await self.drain(number, 0.0)
