# SPDX-License-Identifier: Apache-2.0
"""What a guard knows of its cards from the one before it, of the same boot."""

import pytest

from gpuwarden.control.states import Xid
from gpuwarden.guard.holds import Holds
from gpuwarden.values import ServiceState
from tests.integration.bus_states import card, state, worker

ENDS = [ServiceState.RUNNING, ServiceState.STOPPING]  # of a guard that was killed, and stopped
NEEDS_RESET = [Xid(number=48, unix_microseconds=1)]


@pytest.mark.parametrize("end", ENDS)
def test_a_card_that_was_reset_is_not_taken_out_of_service_for_its_old_xid(
    end: ServiceState,
) -> None:
    was_reset = card(0, xids=NEEDS_RESET)
    holds = Holds(state(state=end, gpus=[was_reset, card(1)]))
    holds.look([0, 1], {0: was_reset, 1: card(1)}, 0.0)
    assert holds.out_of_service() == {}
    again = card(0, xids=[*NEEDS_RESET, Xid(number=48, unix_microseconds=2)])
    holds.look([0, 1], {0: again, 1: card(1)}, 1.0)
    assert list(holds.out_of_service()) == [0]


@pytest.mark.parametrize("end", ENDS)
def test_a_card_that_still_needs_its_reset_stays_out_of_service(end: ServiceState) -> None:
    broken = card(0, xids=NEEDS_RESET)
    workers = [worker(0, held="reset"), worker(1)]
    holds = Holds(state(state=end, gpus=[broken, card(1)], workers=workers))
    holds.look([0, 1], {0: broken, 1: card(1)}, 0.0)
    assert list(holds.out_of_service()) == [0]


def test_a_card_is_judged_by_what_its_driver_told_before_there_was_a_guard() -> None:
    holds = Holds(None)
    holds.look([0], {0: card(0, xids=NEEDS_RESET)}, 0.0)
    assert list(holds.out_of_service()) == [0]
