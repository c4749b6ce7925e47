# SPDX-License-Identifier: Apache-2.0
import pytest

from gpuwarden.gateway.errors import ApiError
from gpuwarden.gateway.idempotency import Attempts, check_key


def work_under(attempts: Attempts[str], key: str, now: float) -> str | None:
    attempt = attempts.known(key, now)
    return None if attempt is None else attempt.work


def test_a_retry_finds_the_request_that_it_repeats_while_it_runs_and_after() -> None:
    attempts = Attempts[str](seconds=60)
    assert work_under(attempts, "key", 0) is None
    attempt = attempts.begin("key", b"body", "work", 0)
    assert work_under(attempts, "key", 1000) == "work"
    attempts.finish(attempt, 10, 1000)
    assert work_under(attempts, "key", 1059) == "work"
    assert work_under(attempts, "key", 1060) is None
    assert (len(attempts), attempts.kept_bytes) == (0, 0)


def test_the_next_end_is_that_of_the_answer_that_came_first() -> None:
    attempts = Attempts[str](seconds=60)
    slow, quick = (attempts.begin(key, b"", key, 0) for key in ("slow", "quick"))
    while_both_run = attempts.next_end
    assert while_both_run is None
    attempts.finish(quick, 10, 5)
    attempts.finish(slow, 10, 8)
    assert attempts.next_end == 65
    attempts.forget(65)
    assert (len(attempts), attempts.next_end) == (1, 68)


def test_another_body_under_a_key_is_an_error() -> None:
    attempts = Attempts[str]()
    attempt = attempts.begin("key", b"body", "work", 0)
    attempt.check_same(b"body")
    with pytest.raises(ApiError) as refused:
        attempt.check_same(b"another")
    assert (refused.value.status, refused.value.param) == (422, "Idempotency-Key")


def test_a_failure_is_not_kept() -> None:
    attempts = Attempts[str]()
    attempts.drop(attempts.begin("key", b"body", "work", 0))
    assert work_under(attempts, "key", 0) is None


def test_answers_are_kept_in_bounded_number_and_bytes_and_the_oldest_go_first() -> None:
    attempts = Attempts[str](limit=3, limit_bytes=100)
    running = attempts.begin("running", b"", "running", 0)
    for number in range(6):
        attempts.finish(attempts.begin(str(number), b"", str(number), 0), 30, 0)
    assert len(attempts) == 3
    assert work_under(attempts, "5", 0) == "5"
    assert work_under(attempts, "3", 0) is None
    assert work_under(attempts, "running", 0) == "running"
    attempts.finish(running, 90, 0)
    assert attempts.kept_bytes <= 100


@pytest.mark.parametrize("key", ["", "x" * 256, "ü", "a\tb"])
def test_a_key_that_is_none_is_refused(key: str) -> None:
    with pytest.raises(ApiError):
        check_key(key)
