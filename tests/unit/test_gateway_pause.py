# SPDX-License-Identifier: Apache-2.0
# A pause of the front door as a value: when it ends, what is believed of a file.

import pytest

from gpuwarden.gateway.pause import LONGEST_SECONDS, Pause

BOOT = "a boot"
NOW = 5_000_000_000_000
SECOND = 10**9


def pause(seconds: float, boot_id: str = BOOT) -> Pause:
    return Pause(
        boot_id=boot_id,
        until_boottime_nanoseconds=NOW + int(seconds * SECOND),
        until_unix_microseconds=1_700_000_000_000_000,
    )


def test_it_ends_at_its_end() -> None:
    assert pause(0.001).runs(NOW)
    assert not pause(0).runs(NOW)
    assert not pause(-1).runs(NOW)


@pytest.mark.parametrize(("seconds", "told"), [(0.001, 1), (1, 1), (1.001, 2), (60, 60)])
def test_a_caller_is_told_when_to_come_back_and_never_too_early(seconds: float, told: int) -> None:
    refusal = pause(seconds).refusal(NOW)
    assert (refusal.status, refusal.type) == (503, "paused")
    assert refusal.headers() == {"Retry-After": str(told)}
    assert "until 2023-11-14 22:13:20 UTC" in refusal.message


def test_what_can_not_be_ours_is_not_believed() -> None:
    assert pause(LONGEST_SECONDS).is_believable(BOOT, NOW)
    assert not pause(60, "another boot").is_believable(BOOT, NOW)
    assert not pause(0).is_believable(BOOT, NOW)
    assert not pause(LONGEST_SECONDS + 1).is_believable(BOOT, NOW)
