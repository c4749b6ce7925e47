# SPDX-License-Identifier: Apache-2.0
import asyncio
import re
import sys
from pathlib import Path

from tests.integration.gateway_node import gateway_node
from tests.integration.real_worker import real_worker
from tests.integration.test_gateway_and_worker import ct_image

DOCUMENT = Path(__file__).parents[2] / "docs" / "integrate.md"


async def test_the_documented_client_gets_an_answer(tmp_path: Path) -> None:
    (source,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    (tmp_path / "ct.dcm").write_bytes(ct_image())
    async with gateway_node() as node, real_worker(node, engine="imagestats", model="imagestats"):
        program = source.replace("127.0.0.1:7860", f"127.0.0.1:{node.port}")
        program = program.replace("/tmp/ct.dcm", str(tmp_path / "ct.dcm"))
        assert program.count(str(node.port)) == program.count(str(tmp_path)) == 1
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0
        assert b'"max":2191' in output
