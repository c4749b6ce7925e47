# SPDX-License-Identifier: Apache-2.0
"""What ``gpuwarden top`` shows, in every size."""

import pytest

from gpuwarden.cli.live.board import SMALLEST, gpu_thing, worker_thing
from gpuwarden.cli.live.lines import Line, Piece, Size, cut, line
from gpuwarden.cli.live.session import Question, Session, View
from gpuwarden.cli.live.trail import TRAIL_SECONDS
from gpuwarden.cli.sparkline import ASCII_LEVELS
from gpuwarden.control.states import GatewayJobs
from gpuwarden.values import ThermalState
from tests.unit.cli.live.scenes import SSH, hot_node, seen, shown, trail_of
from tests.unit.cli.samples import gateway, gpu, guard, orphan, worker


def test_everything_is_on_a_screen_of_80_by_24() -> None:
    jobs = GatewayJobs(queued=3, running=1, succeeded=12, limit_bytes=2**30)
    data = hot_node(gateway=gateway(jobs=jobs), orphans=[orphan(812)])
    text = "\n".join(shown(data, Session(chosen=worker_thing(0))))
    assert "gpuwarden 0.1.0 is DEGRADED, 2 of 2 workers ready" in text
    assert "because: GPU 0 is in alert" in text
    assert "GPU 0 H200 ALERT for 2 h, hot: lower limits hold it; alert 83, critical 90" in text
    assert "temp  84 C" in text
    assert "power        122 W" in text
    assert "limit  450 (700) W" in text
    assert "held under 83 C" in text
    assert "load  97 %" in text
    assert "VRAM   1.0/141.0 G" in text
    assert "1  failed" in text
    assert "Queue: 3 of 100 waiting" in text
    assert "Jobs: 3 waiting, 1 running, 12 done, 0 failed, 0 cancelled" in text
    assert "Orphans: PID 812 python3 (foreign)" in text
    assert "event 39" in text
    assert "q quit" in text
    # Where there is no room for all, the chosen one's card is shown in full.
    assert "1 normal      41 C" in text


@pytest.mark.parametrize("columns", [64, 80, 81, 120, 300])
@pytest.mark.parametrize("rows", [16, 24, 25, 50])
@pytest.mark.parametrize("cards", [0, 1, 2, 8])
def test_every_size_is_filled_exactly(columns: int, rows: int, cards: int) -> None:
    data = hot_node(
        gpus=[gpu(n, state=ThermalState.ALERT, reason="hot " * 40) for n in range(cards)],
        workers=[worker(n, last_error="no room " * 30) for n in range(2 * cards)],
    )
    lines = shown(data, size=Size(columns, rows))
    assert len(lines) == rows
    assert max(map(len, lines)) <= columns
    assert lines[0].startswith("gpuwarden 0.1.0 is DEGRADED")
    assert "q quit" in lines[-1]


def test_the_chosen_one_of_many_is_always_on_the_screen_and_marked() -> None:
    data = guard(gpus=[gpu(n) for n in range(8)], workers=[worker(n) for n in range(16)])
    for number in range(16):
        lines = shown(data, Session(chosen=worker_thing(number)))
        marked = [each for each in lines if each.startswith(">")]
        assert [each.split()[1] for each in marked] == [str(number)]
    assert any("more lines" in each for each in lines)


def test_eight_cards_get_one_line_each() -> None:
    data = guard(gpus=[gpu(n) for n in range(8)], workers=[worker(0)])
    lines = shown(data, Session(chosen=gpu_thing(7)), Size(80, 20))
    rows = [each for each in lines if " normal " in each]
    assert len(rows) == 8
    assert rows[7].startswith(">  7 normal")
    assert "41 C" in rows[7]
    assert "122/700 W" in rows[7]


def test_the_last_minutes_are_a_chart_between_a_cool_room_and_critical() -> None:
    lines = shown(seen(hot_node(), trail_of(0, 20.0, 55.0, 90.0, every_seconds=TRAIL_SECONDS / 16)))
    (heat,) = [each for each in lines if "temp  84 C" in each]
    assert "             ▁▅█]" in heat
    (other,) = [each for each in lines if "temp  41 C" in each]
    assert f"[{' ' * 16}]" in other


def test_a_terminal_without_blocks_gets_plain_characters_alone() -> None:
    trail = trail_of(0, 20.0, 55.0, 90.0, every_seconds=TRAIL_SECONDS / 16)
    text = "\n".join(shown(seen(hot_node(), trail), levels=ASCII_LEVELS))
    assert text.isascii()
    assert "_=#]" in text


@pytest.mark.parametrize("state", list(ThermalState))
def test_every_thermal_state_is_told_in_words(state: ThermalState) -> None:
    lines = shown(guard(gpus=[gpu(0, state=state)]))
    (headline,) = [each for each in lines if state.upper() in each]
    assert len(headline.partition(" for 2 h, ")[2]) > 8


@pytest.mark.parametrize("size", [Size(63, 24), Size(80, 15), Size(20, 4), Size(5, 2), Size(1, 1)])
def test_a_terminal_that_is_too_small_is_told_what_is_needed(size: Size) -> None:
    lines = shown(hot_node(), size=size)
    assert len(lines) == size.rows
    assert max(map(len, lines)) <= size.columns
    if size.columns >= 20:
        assert lines[0] == f"needs {SMALLEST.columns} x {SMALLEST.rows}"
        assert f"has {size.columns} x {size.rows}" in lines[1]


def test_what_could_not_be_looked_at_is_said_above_the_last_that_was_seen() -> None:
    lines = shown(seen(hot_node(), error="no answer from medgemma-guard.service within 10 s"))
    assert lines[1] == "  NOTHING NEW: no answer from medgemma-guard.service within 10 s"
    assert any("temp  84 C" in each for each in lines)


def test_a_service_that_is_down_is_said_to_be() -> None:
    caveat = "medgemma-guard.service is not running"
    lines = shown(seen(hot_node(reasons=[caveat]), caveat=caveat))
    assert lines[0].startswith("gpuwarden 0.1.0 is NOT RUNNING")
    assert lines[1] == f"  because: {caveat}"
    assert lines[2].startswith("  would help: systemctl status medgemma-guard.service")


def test_a_question_stands_where_the_keys_stood() -> None:
    lines = shown(hot_node(), Session(question=Question("restart", 1)))
    assert lines[-2:] == ["Restart worker 1? It finishes what it has first.", "y yes  n no"]
    lines = shown(hot_node(), Session(question=Question("override", 0)))
    assert lines[-2] == "Cool GPU 0 for 10 min as if it were hot?"


def test_what_came_of_an_order_is_told_above_the_keys() -> None:
    lines = shown(hot_node(), Session(message=("worker 1 is ready (PID 7)", "good")))
    assert lines[-2] == "worker 1 is ready (PID 7)"


def test_a_long_text_is_scrolled_no_further_than_its_end() -> None:
    details = [line(f"line {n}") for n in range(100)]
    session = Session(view=View.DETAILS, chosen=worker_thing(1), offset=10)
    lines = shown(hot_node(), session, details=details)
    assert lines[0] == "worker 1  (69 more lines below)"
    assert lines[1] == "line 10"
    end = shown(hot_node(), Session(view=View.DETAILS, offset=10**6), details=details)
    assert end[21] == "line 99"


def test_all_events_are_listed_with_the_last_one_first() -> None:
    lines = shown(hot_node(), Session(view=View.EVENTS))
    assert lines[1].endswith("event 39")
    assert lines[2].endswith("event 38")


def test_the_help_fits_on_80_columns_whole() -> None:
    lines = shown(hot_node(), Session(view=View.HELP))
    assert not any(each.endswith(">") for each in lines)
    assert any(each.startswith("  d  ") for each in lines)


def test_what_would_repaint_a_terminal_is_escaped() -> None:
    data = hot_node(events=[], reasons=["\x1b[2J gone\nwith it"])
    lines = shown(data)
    assert lines[1] == "  because: \\x1b[2J gone\\nwith it"


def test_a_line_is_cut_within_its_pieces_and_says_so() -> None:
    whole = Line((Piece("abc", "bad"), Piece("defg")))
    assert cut(whole, 7) == whole
    assert cut(whole, 6) == Line((Piece("abc", "bad"), Piece("de"), Piece(">")))
    assert cut(whole, 3) == Line((Piece("ab", "bad"), Piece(">")))


def test_nothing_is_cut_of_what_an_operator_needs_at_80_columns() -> None:
    for each in shown(hot_node(), size=SSH):
        if each.endswith(">"):
            assert "worker" in each or "1  failed" in each  # whose note is in the details
