# SPDX-License-Identifier: Apache-2.0
"""Logging of a worker: to stderr for the journal, and never a patient's data.

Libraries put values of what they read into their messages. Once requests may come, records from
outside this package keep their origin and lose their text.
"""

import logging
import os
import sys
import threading
from types import TracebackType
from typing import Optional, Type

from gpuwarden.worker.faults import location

_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}
_OWN = "gpuwarden.worker"


class _JournalFormatter(logging.Formatter):
    """Each line with syslog's priority in front, as journald reads it from stderr."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_PRIORITIES.get(record.levelno, 5)}>" if "JOURNAL_STREAM" in os.environ else ""
        return "\n".join(prefix + line for line in super().format(record).splitlines())


class _ForeignTextFilter(logging.Filter):
    """Takes the text from records of other libraries once requests may come."""

    active = False

    def filter(self, record: logging.LogRecord) -> bool:
        if self.active and not (record.name + ".").startswith(_OWN + "."):
            record.msg = "text withheld, from %s:%s"
            record.args = (record.filename, record.lineno)
            record.exc_info = None
            record.exc_text = None
            record.stack_info = None
        return True


_foreign = _ForeignTextFilter()


def configure(level: str) -> None:
    """Send records to stderr, Python warnings too; uncaught exceptions without their text."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JournalFormatter("%(name)s: %(message)s"))
    handler.addFilter(_foreign)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger(_OWN).setLevel(level.upper())
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda arguments: _log_uncaught(
        arguments.exc_type, arguments.exc_value, arguments.exc_traceback
    )


def withhold_foreign_text() -> None:
    """From now on requests may come."""
    _foreign.active = True


def _log_uncaught(
    kind: Type[BaseException], error: Optional[BaseException], _: Optional[TracebackType]
) -> None:
    where = location(error) if error is not None else kind.__name__
    logging.getLogger(_OWN).error("unexpected %s", where)
