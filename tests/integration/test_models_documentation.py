# SPDX-License-Identifier: Apache-2.0
import os
import re
import tomllib
from pathlib import Path

from tests.integration.worker_peer import LentBuffer, Node

DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"


def block(language: str) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)[0]
    assert isinstance(found, str)
    return found


async def test_the_documented_model_answers(node: Node) -> None:
    source = block("python")
    assert len(source.splitlines()) <= 30
    (node.folder / "brightness.py").write_text(source)
    workers = tomllib.loads(block("toml"))["workers"]
    bright = LentBuffer(1, bytes([120]) * 256 * 256)
    async with node.worker(
        engine_path=[str(node.folder)],
        engine=workers["engine"],
        model=workers["model"],
        options=workers["options"],
    ):
        connection = await node.accept_ready()
        assert connection.hello.meta["model"] == "brightness-1"
        connection.job(1, bright, batch=9, count=2)
        connection.job(2, os.urandom(10), batch=9, count=2)
        results = await connection.results(2)
        assert results[1].meta["answer"] == {"mean": 120.0, "bright": True}
        assert results[2].meta["error"] == {
            "type": "bad_image",
            "message": "10 bytes; send 256 x 256 grey bytes",
        }
    bright.close()
