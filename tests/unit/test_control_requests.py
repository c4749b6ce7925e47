# SPDX-License-Identifier: Apache-2.0
import json

from gpuwarden.control.requests import HISTORY_ROWS_LIMIT, HistoryAnswer, HistoryRow
from gpuwarden.control.socket import PROTOCOL_VERSION, RECORD_LIMIT_BYTES
from gpuwarden.values import ThermalState


def test_the_longest_page_of_history_fits_into_a_record() -> None:
    longest = 1234.5678901234567  # as many digits as a float can need
    row = HistoryRow(
        unix_microseconds=9_999_999_999_999_999,
        celsius=longest,
        celsius_lowest=longest,
        celsius_highest=longest,
        memory_celsius=longest,
        watts=longest,
        watts_highest=longest,
        limit_watts=longest,
        state=max(ThermalState, key=len),
    )
    page = HistoryAnswer(rows=[row] * HISTORY_ROWS_LIMIT, more=True).model_dump(mode="json")
    assert len(json.dumps({"version": PROTOCOL_VERSION, "answer": page})) <= RECORD_LIMIT_BYTES
