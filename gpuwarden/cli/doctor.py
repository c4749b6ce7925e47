# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden doctor``: whether this node will serve well, and how to mend what will not.

With ``--prove-actuators GPU`` it tries on a card what its thermal guard sets.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from gpuwarden import __version__
from gpuwarden.cli import prove_actuators
from gpuwarden.cli.doctor_screen import screen
from gpuwarden.cli.exits import CommandError, Exit
from gpuwarden.cli.options import add_json
from gpuwarden.cli.working import working
from gpuwarden.doctor.checks import Told, examine
from gpuwarden.doctor.findings import Finding, Verdict
from gpuwarden.doctor.node import Node, look


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``[--all] [--json]``, or ``--prove-actuators GPU [--yes] [--output FILE] [--json]``."""
    parser.add_argument("--all", action="store_true", help="tell everything, what is good as well")
    parser.add_argument(
        "--prove-actuators",
        metavar="GPU",
        type=_gpu,
        help="set this card's power limit and SM clock 5 %% lower, read back, put back; asks first",
    )
    parser.add_argument("--yes", action="store_true", help="of a proof, for scripts: don't ask")
    parser.add_argument(
        "--output", metavar="FILE", type=Path, help="of a proof: leave the protocol here as well"
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Look at the node and print what is found: 1 where something is wrong, else 0.

    It looks for itself, so it works with the service dead.
    """
    if arguments.prove_actuators is not None:
        return prove_actuators.run(arguments)
    if arguments.yes or arguments.output:
        raise CommandError("--yes and --output go with --prove-actuators GPU", Exit.BAD_USE)
    with working("looking at the node"):
        node = look()
        told = examine(node)
    if arguments.json:
        print(json.dumps(document(node, told), indent=2))
    else:
        print("\n".join(screen(node, told, everything=arguments.all)))
    is_wrong = any(each.finding.verdict is Verdict.WRONG for each in told)
    return Exit.WRONG if is_wrong else Exit.GOOD


def document(node: Node, told: Sequence[Told]) -> dict[str, Any]:
    """The answer for scripts; docs/operate.md has its schema."""
    return {
        "schema": 1,
        "version": __version__,
        "as_root": node.is_root,
        "simulated": node.plan.simulated if node.plan else None,
        "counts": {
            verdict: sum(each.finding.verdict is verdict for each in told) for verdict in Verdict
        },
        "findings": [{"subject": each.subject, **_as_dictionary(each.finding)} for each in told],
    }


def _as_dictionary(finding: Finding) -> dict[str, str]:
    values = asdict(finding)
    return {field.name: str(values[field.name]) for field in fields(Finding)}


def _gpu(word: str) -> int:
    if not (word.isascii() and word.isdigit()):
        raise argparse.ArgumentTypeError(f"a card is named by its index, 0 or more; found {word!r}")
    return int(word)
