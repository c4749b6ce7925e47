# SPDX-License-Identifier: Apache-2.0
"""What docs/integrate-bus.md tells people to write, on a private bus with the guard's objects."""

import asyncio
import os
import re
import sys
from pathlib import Path

from gpuwarden.values import ThermalState
from tests.integration.bus_peers import guarded
from tests.integration.bus_states import card, state
from tests.integration.private_bus import private_bus, shipped_policy

DOCUMENT = Path(__file__).parents[2] / "docs" / "integrate-bus.md"


async def test_the_documented_program_hears_of_a_hot_card() -> None:
    (program,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    async with private_bus([shipped_policy()]) as bus, guarded(bus) as service:
        service.publish(state())
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program),
            env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": bus.address},
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        async with asyncio.timeout(30):
            assert await process.stdout.readline() == b"running 2 of 2\n"
            assert await process.stdout.readline() == b"listening\n"
            hot = card(1).model_copy(update={"state": ThermalState.ALERT, "reason": "79 C"})
            service.publish(state(gpus=[card(0), hot]))
            told, _ = await process.communicate()
    assert told == b"GPU 1: normal -> alert (79 C)\n"
    assert process.returncode == 0
