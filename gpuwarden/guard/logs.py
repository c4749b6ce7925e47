# SPDX-License-Identifier: Apache-2.0
"""How the guard logs, and from which level on, as systemctl asks for it."""

import logging

from gpuwarden.bus.errors import InvalidArgument
from gpuwarden.systemd.journal import SYSLOG_IDENTIFIER, JournalHandler

# syslog's names to numbers between Python's, so that each is told back as it was set.
LEVELS = {
    "emerg": logging.CRITICAL + 2,
    "alert": logging.CRITICAL + 1,
    "crit": logging.CRITICAL,
    "err": logging.ERROR,
    "warning": logging.WARNING,
    "notice": logging.INFO + 5,
    "info": logging.INFO,
    "debug": logging.DEBUG,
}
JOURNAL = "journal"
CONSOLE = "console"


class GuardLog:
    """The logging of this process."""

    @property
    def level(self) -> str:
        """The least important level that is logged, by syslog's name."""
        number = logging.getLogger().level
        return next((name for name, each in LEVELS.items() if each <= number), "debug")

    @property
    def target(self) -> str:
        """``journal``; ``console`` where there was no journal at the start."""
        handlers = logging.getLogger().handlers
        return JOURNAL if any(isinstance(each, JournalHandler) for each in handlers) else CONSOLE

    @property
    def identifier(self) -> str:
        """What journalctl -t asks for."""
        return SYSLOG_IDENTIFIER

    def set_level(self, level: str) -> None:
        """Log from this level on. Raises InvalidArgument."""
        if level not in LEVELS:
            raise InvalidArgument(f"no log level of that name; there are: {', '.join(LEVELS)}")
        logging.getLogger().setLevel(LEVELS[level])

    def set_target(self, target: str) -> None:
        """Accept the journal. Raises InvalidArgument for anything else."""
        if target != JOURNAL:
            raise InvalidArgument(f"the supervisor logs to the {JOURNAL}, nothing else can be set")
