# SPDX-License-Identifier: Apache-2.0
"""Marks each test by its folder, and fails the run on a skip that no absent GPU explains.

Whatever a test has told to the journal is held to the catalogue that explains it.
"""

import gc
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import settings

from gpuwarden.systemd.events import Event, follow, unfollow
from tests.events import lacking

# The time that an example takes on a busy machine is no fault of the code.
settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")

LAYERS = ("unit", "integration", "system", "gpu")
ABSENT_GPU = "no NVIDIA GPU"


@pytest.fixture(autouse=True)
def events_are_explained_by_what_they_carry() -> Iterator[None]:
    problems: list[str] = []

    def look(event: Event, message: str, level: int, fields: Mapping[str, str]) -> None:
        if problem := lacking(event, fields):
            problems.append(problem)

    follow(look)
    yield
    unfollow(look)
    assert not problems, "\n".join(dict.fromkeys(problems))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = Path(item.path).relative_to(Path(__file__).parent).parts[0]
        if folder in LAYERS:
            item.add_marker(folder)


def pytest_collection_finish() -> None:
    """What is loaded by now stays: no collection of garbage need look through it again.

    That took a tenth of a second each time, and an engine's drop of caches is one.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    unexplained = [report for report in skipped if ABSENT_GPU not in str(report.longrepr)]
    if (
        reporter
        and unexplained
        and session.exitstatus
        in (
            pytest.ExitCode.OK,
            pytest.ExitCode.NO_TESTS_COLLECTED,
        )
    ):
        for report in unexplained:
            reporter.write_line(f"SKIPPED WITHOUT AN ABSENT GPU: {report.nodeid}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
