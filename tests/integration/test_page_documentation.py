# SPDX-License-Identifier: Apache-2.0
"""The page of docs/page.md: what it says of the heat, and asks, at a real front door.

Gradio itself is no dependency of ours, and larger than all of them. So the page is in two files:
what it shows and asks runs here as it is written, without Gradio; what lays it out is held to the
names of the first, and to be Python.
"""

import ast
import asyncio
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.integration.gateway_node import GatewayNode, gateway_node
from tests.integration.real_worker import real_worker
from tests.integration.test_gateway_and_worker import ct_image

DOCUMENT = (Path(__file__).parents[2] / "docs" / "page.md").read_text(encoding="utf-8")


def files(language: str) -> dict[str, str]:
    """The blocks of a language by the names in their first lines."""
    found = re.findall(rf"```{language}\n(# (\S+)\n.*?)```", DOCUMENT, re.DOTALL)
    return {name: text for text, name in found}


def heat(node: GatewayNode) -> dict[str, Any]:
    """The names of heat.py, whose front door is this one."""
    source = files("python")["heat.py"]
    assert source.count("127.0.0.1:7860") == 1
    names: dict[str, Any] = {}
    exec(source.replace("127.0.0.1:7860", f"127.0.0.1:{node.port}"), names)
    return names


async def test_the_banner_says_how_it_is() -> None:
    async with gateway_node() as node:
        await node.worker(max_batch=4)
        banner = heat(node)["banner"]
        assert await asyncio.to_thread(banner) == ""

        await node.post(b"", path="/api/thermal_mode?mode=eco", media_type=None)
        assert "Eco Mode**, by order, for 900 s at most" in await asyncio.to_thread(banner)

        node.guards.publish(0, batch_limit=1)
        await node.until(lambda: node.service.eco.limited_by_heat)
        assert "Eco Mode (GPU throttled)" in await asyncio.to_thread(banner)
    assert "doesn't answer" in await asyncio.to_thread(banner)


async def test_the_page_asks_and_shows_answers_and_refusals(tmp_path: Path) -> None:
    image, text = tmp_path / "ct.dcm", tmp_path / "notes.txt"
    image.write_bytes(ct_image())
    text.write_text("no image")
    async with gateway_node() as node, real_worker(node, engine="imagestats", model="imagestats"):
        ask = heat(node)["ask"]
        assert '"max": 2191' in await asyncio.to_thread(ask, str(image), "Describe")
        refused = await asyncio.to_thread(ask, str(text), "Describe")
        assert refused and "{" not in refused


def test_the_page_uses_what_the_first_file_has() -> None:
    written = files("python")
    tree = ast.parse(written["page.py"])
    wanted = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "heat"
        for alias in node.names
    }
    known = {n.name for n in ast.parse(written["heat.py"]).body if isinstance(n, ast.FunctionDef)}
    assert wanted and wanted <= known
    loaded = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    assert wanted <= loaded


def test_the_pages_unit_is_a_unit(tmp_path: Path) -> None:
    (text,) = re.findall(r"```ini\n(.*?)```", DOCUMENT, re.DOTALL)
    unit = tmp_path / "xray-page.service"
    unit.write_text(text.replace("/opt/page/bin/python", "/bin/true"), encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    complaints = [line for line in done.stderr.splitlines() if unit.name in line]
    assert complaints == []


@pytest.mark.parametrize("name", ["heat.py", "page.py"])
def test_both_files_are_short(name: str) -> None:
    assert len(files("python")[name].splitlines()) <= 60
