# SPDX-License-Identifier: Apache-2.0
import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gpuwarden import names
from gpuwarden.cli.main import main
from gpuwarden.control.socket import ControlError, serve


class Guard:
    """Answers reload requests as told."""

    def __init__(self) -> None:
        self.answer: dict[str, Any] | ControlError = {}

    def reload(self, request: dict[str, Any]) -> dict[str, Any]:
        if isinstance(self.answer, ControlError):
            raise self.answer
        return self.answer


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "guard.sock"
    monkeypatch.setattr(names, "GUARD_CONTROL_SOCKET", path)
    return path


@pytest.fixture
async def guard(path: Path) -> AsyncIterator[Guard]:
    guard = Guard()
    server = await serve(path, {"reload": guard.reload}, allowed_uids={os.getuid()})
    yield guard
    await server.close()


async def run(*words: str) -> int:
    return await asyncio.to_thread(main, ["reload", *words])


@pytest.mark.parametrize(
    ("answer", "code", "lines"),
    [
        ({}, 0, ["nothing to change"]),
        (
            {"applied": ["guard", "gateway"], "notes": ["max_batch: when a worker restarts"]},
            0,
            [
                "new settings taken by: guard, gateway",
                "note: max_batch: when a worker restarts",
            ],
        ),
        (
            {"applied": ["guard"], "restart": [0, 2]},
            0,
            [
                "new settings taken by: guard",
                "workers 0, 2 run by former settings until restarted: systemctl restart "
                "medgemma-worker@0.service medgemma-worker@2.service",
            ],
        ),
        (
            {"applied": ["guard"], "kept": {"thermal 1": "blind"}},
            1,
            ["thermal 1 keeps its old settings: blind", "new settings taken by: guard"],
        ),
        (
            {"problems": ["/etc/gpuwarden/gpuwarden.toml:3: x"]},
            1,
            [
                "/etc/gpuwarden/gpuwarden.toml:3: x",
                "nothing was changed: the service keeps its settings",
            ],
        ),
    ],
)
async def test_the_outcome_is_told_and_in_the_exit_code(
    guard: Guard,
    answer: dict[str, Any],
    code: int,
    lines: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    guard.answer = answer
    assert await run() == code
    assert capsys.readouterr().out.splitlines() == lines
    assert await run("--json") == code
    document = json.loads(capsys.readouterr().out)
    empty: dict[str, Any] = {"applied": [], "kept": {}, "problems": [], "restart": [], "notes": []}
    assert document == empty | answer


async def test_a_refusal_is_told(guard: Guard, capsys: pytest.CaptureFixture[str]) -> None:
    guard.answer = ControlError("Busy", "a reload is under way")
    assert await run() == 1
    assert "not reloaded: a reload is under way" in capsys.readouterr().err


async def test_an_answer_of_another_version_is_told(
    guard: Guard, capsys: pytest.CaptureFixture[str]
) -> None:
    guard.answer = {"colour": "red"}
    assert await run() == 1
    assert "systemctl restart medgemma-guard.service" in capsys.readouterr().err


async def test_without_the_service_there_is_nothing_to_reload(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run() == 3
    assert "medgemma-guard.service does not answer" in capsys.readouterr().err
