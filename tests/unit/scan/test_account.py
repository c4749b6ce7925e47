# SPDX-License-Identifier: Apache-2.0
import pytest

from gpuwarden.scan.account import MIB, unexplained_bytes

GIB = 1024 * MIB


@pytest.mark.parametrize(
    ("used", "held", "rest"),
    [
        (0, [], 0),
        (4 * MIB, [], 0),
        # An H100's own figures: one context; two; one that holds 4 GiB of managed memory.
        (int(526.8 * MIB), [518 * MIB], 0),
        (int(2074.4 * MIB), [518 * MIB, 1542 * MIB], 0),
        (6694 * MIB, [518 * MIB, 1542 * MIB, 518 * MIB], 4116 * MIB),
        (3 * GIB, [], 3 * GIB),
        (GIB, [2 * GIB], 0),
        (None, [GIB], None),
        (GIB, [GIB, None], None),
    ],
)
def test_what_nobody_is_known_to_hold(
    used: int | None, held: list[int | None], rest: int | None
) -> None:
    assert unexplained_bytes(used, held) == rest
