# SPDX-License-Identifier: Apache-2.0
"""What stands for everything that the bus's methods do: takes down what was asked."""

from dataclasses import dataclass, field

from gpuwarden.bus.errors import BusError
from gpuwarden.control.requests import HistoryRow


@dataclass
class Recording:
    """The methods of Manager, Worker, Thermal and Gateway.

    :ivar refusal: what each raises instead.
    """

    done: list[tuple[object, ...]] = field(default_factory=list)
    refusal: BusError | None = None

    def _take(self, *call: object) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.done.append(call)

    async def start(self, number: int) -> None:
        self._take("start", number)

    async def stop(self, number: int) -> None:
        self._take("stop", number)

    async def restart(self, number: int) -> None:
        self._take("restart", number)

    async def drain(self, number: int) -> None:
        self._take("drain", number)

    async def rolling_restart(self) -> None:
        self._take("rolling restart")

    async def reload(self) -> None:
        self._take("reload")

    async def reap(self, pid: int) -> int:
        self._take("reap", pid)
        return 2**33

    async def override(self, gpu_index: int, state: str, seconds: int) -> None:
        self._take("override", gpu_index, state, seconds)

    async def clear_override(self, gpu_index: int) -> None:
        self._take("clear override", gpu_index)

    async def history(self, gpu_index: int, seconds: int) -> list[HistoryRow]:
        return []

    async def release(self, gpu_index: int, seconds: int) -> None:
        self._take("release", gpu_index, seconds)

    async def pause(self, seconds: int) -> None:
        self._take("pause", seconds)

    async def resume(self) -> None:
        self._take("resume")
