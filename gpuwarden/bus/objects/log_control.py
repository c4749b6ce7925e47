# SPDX-License-Identifier: Apache-2.0
"""org.freedesktop.LogControl1: systemd's own convention for a service's log level.

``systemctl service-log-level medgemma-guard debug`` speaks it. Its properties are written, not
changed by methods, because that is how systemctl does it; who may is asked all the same.
"""

from typing import Protocol

from gpuwarden.bus.interface import Emits, Exported, Interface, Property
from gpuwarden.names import RELOAD_ACTION


class LogControl(Protocol):
    """How this process logs."""

    @property
    def level(self) -> str:
        """The least important level that is logged, by syslog's name."""

    @property
    def target(self) -> str:
        """Where it is logged to."""

    @property
    def identifier(self) -> str:
        """As what."""

    def set_level(self, level: str) -> None:
        """Log from this level on. Raises BusError."""

    def set_target(self, target: str) -> None:
        """Log to there. Raises BusError."""


LOG_CONTROL: Interface[LogControl] = Interface(
    "org.freedesktop.LogControl1",
    "What the supervisor writes to the journal: systemd's convention, spoken by systemctl.",
    properties=(
        Property(
            "LogLevel",
            "s",
            Emits.FALSE,
            lambda log: log.level,
            "The least important level that is logged: emerg, alert, crit, err, warning, notice, "
            "info or debug. Until the supervisor's next start, or the next reload.",
            RELOAD_ACTION,
        ),
        Property(
            "LogTarget",
            "s",
            Emits.FALSE,
            lambda log: log.target,
            "Where to; nothing but journal can be set.",
            RELOAD_ACTION,
        ),
        Property(
            "SyslogIdentifier",
            "s",
            Emits.CONST,
            lambda log: log.identifier,
            "SYSLOG_IDENTIFIER of what is logged.",
        ),
    ),
)


def exported_log_control(log: LogControl) -> Exported[LogControl]:
    """The interface over how this process logs."""
    setters = {"LogLevel": log.set_level, "LogTarget": log.set_target}
    return Exported(LOG_CONTROL, lambda: log, setters=setters)
