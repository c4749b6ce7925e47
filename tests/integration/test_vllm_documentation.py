# SPDX-License-Identifier: Apache-2.0
"""What docs/vllm.md tells people to write, with a small server in vLLM's place."""

import re
import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

from gpuwarden.config import load_configuration
from gpuwarden.worker.engines.command.options import Options, parse_options
from tests.integration.command_server import SERVER, ask, free_port
from tests.integration.gateway_node import gateway_node
from tests.integration.real_worker import openai_client, real_worker

DOCUMENT = Path(__file__).parents[2] / "docs" / "vllm.md"


def documented(folder: Path) -> list[dict[str, Any]]:
    """The tables ``workers`` of the document's files, each of which is valid by itself."""
    found = []
    for text in re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL):
        file = folder / "gpuwarden.toml"
        file.write_text(text)
        load_configuration(file, folder / "conf.d")
        found.append(tomllib.loads(text)["workers"])
    return found


async def test_the_documented_server_answers(tmp_path: Path) -> None:
    vllm, *_ = documented(tmp_path)
    options = parse_options(vllm["options"])
    assert options.command[:2] == ("/opt/vllm/bin/vllm", "serve")
    command = [sys.executable, "-I", SERVER, *options.command[1:]]
    settings = {
        "engine": vllm["engine"],
        "model": vllm["model"],
        "max_batch": vllm["max_batch"],
        "options": {**vllm["options"], "command": command, "port": free_port()},
    }
    async with (
        gateway_node() as node,
        real_worker(node, **settings) as worker,
        openai_client(node) as client,
    ):
        answer = await ask(client, "say 2", model=vllm["model"])
        assert answer.choices[0].message.content == "0 1 "
        assert f"--max-num-seqs {vllm['max_batch']}" in worker.log()


def test_every_option_is_in_the_table_with_its_default() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", DOCUMENT.read_text(), re.MULTILINE))
    for option in fields(Options):
        default = rows[option.name].strip("`").strip('"')
        if option.name in ("command", "port"):
            assert default == "needed"
        elif option.name == "served_model":
            assert default == "model"
        else:
            plain = str(option.default).lower() if option.default not in ((), "") else "none"
            assert default == plain
