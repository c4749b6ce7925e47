# SPDX-License-Identifier: Apache-2.0
"""Tiny models, made once; nothing is collected where torch is not installed."""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

# More threads wait for each other most of the time, where models are this small.
os.environ.setdefault("OMP_NUM_THREADS", "1")

collect_ignore_glob = [] if find_spec("torch") else ["test_*.py"]


@pytest.fixture(scope="session")
def gemma3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A multi-modal Gemma 3."""
    from tests.engine.tiny import save_gemma3  # noqa: PLC0415 - needs torch

    return save_gemma3(tmp_path_factory.mktemp("models") / "gemma3")


@pytest.fixture(scope="session")
def text_gemma3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Gemma 3 of text alone."""
    from tests.engine.tiny import save_text_gemma3  # noqa: PLC0415 - needs torch

    return save_text_gemma3(tmp_path_factory.mktemp("models") / "text-gemma3")


@pytest.fixture(scope="session")
def qwen3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal model of another family."""
    from tests.engine.tiny import save_qwen3  # noqa: PLC0415 - needs torch

    return save_qwen3(tmp_path_factory.mktemp("models") / "qwen3")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is left in the home of who runs the tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield
