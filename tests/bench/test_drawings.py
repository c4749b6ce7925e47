# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from tools.policy_drawings import IMAGES, POLICIES, draw, drawing


@pytest.mark.parametrize("policy", POLICIES)
def test_the_documented_drawing_is_what_the_policy_does(policy: str, tmp_path: Path) -> None:
    documented = (IMAGES / drawing(policy)).read_bytes()
    assert draw(policy, tmp_path).read_bytes() == documented, (
        "python -m tools.policy_drawings draws it again"
    )
