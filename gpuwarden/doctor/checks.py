# SPDX-License-Identifier: Apache-2.0
"""All checks, in the order in which they are told."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gpuwarden.doctor import (
    access,
    bus,
    compiling,
    driver,
    kernel,
    memory,
    placement,
    processors,
    rivals,
    service,
    storage,
    tuner,
)
from gpuwarden.doctor.findings import Finding, Verdict
from gpuwarden.doctor.node import Node


@dataclass(frozen=True, slots=True)
class Check:
    """A subject and its examination."""

    subject: str
    examine: Callable[[Node], Sequence[Finding]]


@dataclass(frozen=True, slots=True)
class Told:
    """A finding with the subject that it belongs to."""

    subject: str
    finding: Finding


CHECKS: tuple[Check, ...] = (
    Check("service", service.examine),
    Check("driver", driver.examine),
    Check("placement", placement.examine),
    Check("processors", processors.examine),
    Check("memory", memory.examine),
    Check("storage", storage.examine),
    Check("compiling", compiling.examine),
    Check("kernel", kernel.examine),
    Check("access", access.examine),
    Check("bus", bus.examine),
    Check("rivals", rivals.examine),
    Check("tuner", tuner.examine),
)


def examine(node: Node, checks: Sequence[Check] = CHECKS) -> list[Told]:
    """Every check's findings. One that the kernel fails is unknown, and the others go on."""
    told: list[Told] = []
    for check in checks:
        try:
            findings = check.examine(node)
        except OSError as error:
            findings = [_failed(check, error)]
        told += [Told(check.subject, finding) for finding in findings]
    return told


def _failed(check: Check, error: OSError) -> Finding:
    return Finding(
        name=check.subject,
        verdict=Verdict.UNKNOWN,
        found=f"{error.filename or check.subject}: {error.strerror or error}",
        wanted="an answer",
        why="the kernel or a disk failed when it was asked",
        mend="journalctl -k -n 50",
    )
