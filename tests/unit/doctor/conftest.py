# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from tests.unit.doctor.machine import Made


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """A machine without a single file."""
    return Made(tmp_path)
