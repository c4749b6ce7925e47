# SPDX-License-Identifier: Apache-2.0
"""SIGKILL of the front door with durable jobs in flight: each 202 ends in exactly one result.

Callers submit and try again under their key, a worker answers and connects again, now and then it
dies of a job that it has executed, and the front door is killed at random moments of all that.
What a caller was told must hold in the end.
"""

import asyncio
import contextlib
import hashlib
import random
import signal
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.gateway_node import Reply, ThermalGuards, read_reply
from tests.integration.gateway_peer import GatewayPeer
from tests.integration.gateway_process import RUN, ready

CALLERS = 4
LONGEST_LIFE_SECONDS = 0.7  # enough for some jobs; most kills hit the store at work
DEATHS_SHARE = 0.1  # of the jobs: the worker dies when it has executed one for the first time
BODY_BYTES = (100, 70_000, 1_500_000)  # inline, through the parser, by take-over
DEADLINE_SECONDS = 60.0
API_KEY = "open sesame, open sesame"


@dataclass
class Figures:
    kills: int = 0
    deaths: int = 0  # of the worker
    accepted: int = 0
    repeats: int = 0  # jobs that were given to a worker more than once, and say so
    faults: list[str] = field(default_factory=list)


class KilledFrontDoor:
    """A front door that is killed again and again, its worker, and its callers."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._chance = random.Random(seed)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._over = asyncio.Event()
        self._accepted: dict[str, bytes] = {}  # id -> body of what was told to be accepted
        self._executed: list[str] = []  # hash of each body that the worker executed
        self._deaths = 0
        (folder / "jobs").mkdir()
        (folder / "gpuwarden-jobs-key").write_bytes(bytes(range(32)))
        (folder / "gpuwarden-api-key").write_text(API_KEY)
        ThermalGuards(folder / "thermal")

    async def run(self, kills: int) -> Figures:
        figures = Figures()
        process = await self._start()
        callers = [asyncio.create_task(self._call(number)) for number in range(CALLERS)]
        worker = asyncio.create_task(self._work())
        try:
            for _ in range(kills):
                await asyncio.sleep(self._chance.uniform(0, LONGEST_LIFE_SECONDS))
                process.send_signal(signal.SIGKILL)
                await process.wait()
                figures.kills += 1
                process = await self._start()
            self._over.set()
            await asyncio.wait_for(asyncio.gather(*callers), DEADLINE_SECONDS)
            await self._check(figures)
        finally:
            worker.cancel()
            for caller in callers:
                caller.cancel()
            process.kill()
            await process.wait()
        return figures

    async def _start(self) -> asyncio.subprocess.Process:
        (self._folder / "notify.sock").unlink(missing_ok=True)
        arguments = {
            "--http": f"127.0.0.1:{self.port}",
            "--dispatch": str(self._folder / "dispatch.sock"),
            "--state": str(self._folder / "state.json"),
            "--thermal": str(self._folder / "thermal"),
            "--jobs": str(self._folder / "jobs"),
        }
        words = [word for pair in arguments.items() for word in pair]
        environment = {"CREDENTIALS_DIRECTORY": str(self._folder)}
        return await ready(self._folder, RUN, *words, environment=environment)

    async def _call(self, number: int) -> None:
        """Submit one job after the other, each until it is accepted."""
        count = 0
        while not self._over.is_set():
            count += 1
            size = self._chance.choice(BODY_BYTES)
            body = f"caller {number} job {count} ".encode().ljust(size, b".")
            while not self._over.is_set():
                with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                    reply = await self._ask("POST", "/v1/jobs", body, f"{number}-{count}")
                    if reply.status in (200, 202):
                        self._accepted[reply.json["id"]] = body
                        break
                await asyncio.sleep(0.02)

    async def _work(self) -> None:
        """A worker that answers with the body's hash, and comes back after each death."""
        while True:
            with contextlib.suppress(OSError, TimeoutError):
                peer = GatewayPeer(self._folder / "dispatch.sock")
                with contextlib.closing(peer):
                    await peer.become_ready()
                    while not peer.closed.is_set():
                        with contextlib.suppress(TimeoutError):
                            job = await asyncio.wait_for(peer.jobs.get(), 0.2)
                            if self._is_executed_and_deadly(job.sha256):
                                break
                            peer.answer(job)
            await asyncio.sleep(0.05)

    def _is_executed_and_deadly(self, sha256: str) -> bool:
        """Whether the worker dies before it can answer."""
        is_first = sha256 not in self._executed
        self._executed.append(sha256)
        is_deadly = is_first and self._chance.random() < DEATHS_SHARE
        self._deaths += is_deadly
        return is_deadly

    async def _check(self, figures: Figures) -> None:
        figures.accepted, figures.deaths = len(self._accepted), self._deaths
        for identifier, body in self._accepted.items():
            reply = await self._ask("GET", f"/v1/jobs/{identifier}?wait=60")
            wanted = hashlib.sha256(body).hexdigest()
            if reply.status != 200 or reply.json["status"] != "succeeded":
                figures.faults.append(f"{identifier}: {reply.body.decode()}")
            elif reply.json["result"]["answer"]["sha256"] != wanted:
                figures.faults.append(f"{identifier} has another's answer")
            else:
                executions = reply.json["executions"]
                figures.repeats += executions > 1
                if self._executed.count(wanted) > executions:
                    figures.faults.append(f"{identifier} was repeated without saying so")
        await self._check_list(figures)
        bodies = list(self._accepted.values())
        if len(set(bodies)) != len(bodies):
            figures.faults.append("a body was accepted as two jobs")

    async def _check_list(self, figures: Figures) -> None:
        """Nothing may be kept but what was told, and what a caller did not wait for at the end."""
        listed: list[str] = []
        place: str | None = "0"
        while place is not None:
            page = (await self._ask("GET", f"/v1/jobs?after={place}")).json
            listed += [job["id"] for job in page["data"]]
            place = page["next"]
        if len(set(listed)) != len(listed) or not set(self._accepted) <= set(listed):
            figures.faults.append("the list of jobs is not that of the accepted ones")
        if len(listed) > len(self._accepted) + CALLERS:
            figures.faults.append(f"{len(listed)} jobs for {len(self._accepted)} accepted")

    async def _ask(self, method: str, path: str, body: bytes = b"", key: str = "") -> Reply:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        head += f"Authorization: Bearer {API_KEY}\r\n"
        head += f"Idempotency-Key: {key}\r\n" if key else ""
        try:
            writer.write(head.encode() + b"\r\n" + body)
            await writer.drain()
            return await read_reply(reader, DEADLINE_SECONDS + 10)
        finally:
            writer.close()


async def campaign(folder: Path, kills: int, seed: int) -> Figures:
    """Kill a front door so often; its state lies in ``folder``."""
    return await KilledFrontDoor(folder, seed).run(kills)


if __name__ == "__main__":
    print(asyncio.run(campaign(Path(sys.argv[1]), int(sys.argv[2]), 1)))
