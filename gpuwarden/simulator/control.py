# SPDX-License-Identifier: Apache-2.0
"""The control socket: what ``gpuwarden-sim`` asks is done here."""

import asyncio
import json
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from gpuwarden.simulator.attach import peer_of
from gpuwarden.simulator.frozen import FreezeError, FrozenFile
from gpuwarden.simulator.machine import Fault, Machine, RefusedError
from gpuwarden.simulator.messages import (
    ONCE_FAULTS,
    REQUEST,
    AddFault,
    Clear,
    MessageError,
    ReloadDriver,
    Request,
    SetLoad,
    SetWorld,
    parse,
)
from gpuwarden.simulator.state_file import StateFile

log = logging.getLogger(__name__)

FAULTS = {fault.command: fault for fault in Fault}


class ControlServer:
    """Serves root's requests."""

    def __init__(
        self,
        machines: list[Machine],
        file: StateFile,
        frozen: FrozenFile,
        changed: Callable[[], None],
    ) -> None:
        self._machines = machines
        self._file = file
        self._frozen = frozen
        self._changed = changed
        self._one_at_a_time = asyncio.Lock()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: a request a line."""
        try:
            pid, uid = peer_of(writer)
            if uid not in (0, os.geteuid()):
                log.warning("process %d of user %d may not control the simulator", pid, uid)
                return
            while line := await reader.readline():
                writer.write(json.dumps(await self._answer(line)).encode() + b"\n")
                await writer.drain()
        except (OSError, ValueError) as error:
            log.info("a control connection broke: %s", error)
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request: Request = parse(REQUEST, line)
            async with self._one_at_a_time:
                note = await self._do(request)
        except (MessageError, RefusedError) as error:
            return {"ok": False, "error": str(error)}
        self._changed()
        return {"ok": True, "note": note, "cards": [show(machine) for machine in self._machines]}

    async def _do(self, request: Request) -> str:
        """Carry out one request; a remark for the operator, or nothing."""
        match request:
            case SetWorld():
                self._set_world(request)
            case SetLoad():
                self._machine(request.gpu).base_load = request.fraction
            case AddFault():
                return await self._add_fault(request)
            case Clear():
                await self._clear(request)
            case ReloadDriver():
                for machine in self._machines:
                    machine.reload()
        return ""

    def _machine(self, index: int) -> Machine:
        if index >= len(self._machines):
            raise RefusedError(f"gpu: no card {index}; there are 0 to {len(self._machines) - 1}")
        return self._machines[index]

    def _set_world(self, request: SetWorld) -> None:
        machine = self._machine(request.gpu)
        if request.ambient_celsius is None and request.resistance_factor is None:
            raise RefusedError("set: give an ambient temperature or a resistance factor")
        if request.ambient_celsius is not None:
            machine.world = replace(machine.world, ambient_celsius=request.ambient_celsius)
        if request.resistance_factor is not None:
            machine.world = replace(machine.world, resistance_factor=request.resistance_factor)

    async def _add_fault(self, request: AddFault) -> str:
        machine = self._machine(request.gpu)
        takes_value = request.kind in ("external-limit", "xid")
        if takes_value != (request.value is not None):
            wanted = "needs a value: KIND=VALUE" if takes_value else "takes no value"
            raise RefusedError(f"{request.kind} {wanted}")
        note = ""
        if request.kind == "hang":
            note = await self._prepare_hang()
        if request.kind in ONCE_FAULTS:
            self._do_once(machine, request)
        else:
            machine.add_fault(FAULTS[request.kind])
        return note

    def _do_once(self, machine: Machine, request: AddFault) -> None:
        if request.kind == "context-lost":
            machine.contexts.clear()
        elif request.value is not None and request.kind == "external-limit":
            machine.set_external_limit(request.value)
        elif request.value is not None:
            if request.value != int(request.value) or request.value > 0xFFFF:
                raise RefusedError(
                    f"xid must be a whole number up to 65535 (found {request.value})"
                )
            machine.raise_xid(int(request.value))

    async def _prepare_hang(self) -> str:
        try:
            await self._frozen.set_up()
        except FreezeError as error:
            self._file.state.hang_file = b""
            return f"calls block, but a kill ends them: no frozen file system here ({error})"
        self._file.state.hang_file = str(self._frozen.path).encode()
        return "calls sleep uninterruptibly until `clear`"

    async def _clear(self, request: Clear) -> None:
        chosen = self._machines if request.gpu is None else [self._machine(request.gpu)]
        for machine in chosen:
            machine.clear()
        if not any(Fault.HANG in machine.faults for machine in self._machines):
            self._file.state.hang_file = b""
            await self._frozen.tear_down()


def show(machine: Machine) -> dict[str, Any]:
    """Everything about a card; temperatures and watts unrounded, which no driver tells."""
    plant, settings = machine.plant, machine.settings()
    return {
        "gpu": machine.index,
        "preset": machine.entry.preset,
        "name": machine.entry.model.name,
        "uuid": machine.uuid,
        "pci_address": machine.entry.pci_address,
        "ambient_celsius": machine.world.ambient_celsius,
        "resistance_factor": machine.world.resistance_factor,
        "load": machine.load,
        "base_load": machine.base_load,
        "die_celsius": plant.die_celsius,
        "sink_celsius": plant.sink_celsius,
        "memory_celsius": plant.memory_celsius,
        "watts": plant.watts,
        "power_limit_watts": settings.power_limit_watts,
        "sm_mhz": plant.sm_mhz,
        "sm_lock_mhz": settings.sm_lock_mhz,
        "memory_lock_mhz": settings.memory_lock_mhz,
        "reasons": int(plant.reasons),
        "faults": [fault.command for fault in Fault if fault in machine.faults],
        "attachment": machine.card.control.attachment,
        "vram_used_bytes": machine.vram_used_bytes,
        "contexts": [
            {
                "pid": context.pid,
                "vram_bytes": context.vram_bytes,
                "load": context.load,
                "kind": context.kind,
            }
            for context in machine.contexts
        ],
    }
