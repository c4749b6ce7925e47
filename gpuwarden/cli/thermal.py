# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden thermal``: how each card is kept cool, and what an operator may order."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpuwarden.cli import thermal_orders
from gpuwarden.cli.exits import CommandError, Exit
from gpuwarden.cli.options import add_json, understood_by
from gpuwarden.cli.output import unix_now, warn
from gpuwarden.cli.thermal_orders import Done
from gpuwarden.cli.thermal_plot import plot
from gpuwarden.cli.thermal_report import report
from gpuwarden.cli.thermal_screen import card_lines
from gpuwarden.cli.thermal_sources import CardHeat, known_cards, look, unknown_card

STATES = ("alert", "critical")
LONGEST_SECONDS = 86400  # design.md, "D-Bus": Override and Release
_USAGE = """gpuwarden thermal [-h] [--json] [--plot FILE] [GPU]
       gpuwarden thermal override GPU alert|critical SECONDS
       gpuwarden thermal clear-override GPU
       gpuwarden thermal release GPU SECONDS"""


@dataclass(frozen=True)
class Asked:
    """The words of the command: which card, and what is ordered of it; "" to look only."""

    gpu: int | None = None
    action: str = ""
    state: str = ""
    seconds: int = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``[GPU] [--plot FILE] [--json]``, or an action."""
    parser.usage = _USAGE
    parser.set_defaults(asked=Asked())
    parser.add_argument(
        "words",
        metavar="GPU",
        nargs="*",
        action=understood_by(_understand),
        help="this card alone, by its index",
    )
    parser.add_argument(
        "--plot",
        metavar="FILE",
        type=Path,
        help="draw the last hour of the card into this .png or .svg file",
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show, draw or order."""
    asked: Asked = arguments.asked
    if asked.action:
        if arguments.plot is not None:
            raise CommandError(f"--plot goes with no action, here {asked.action}", Exit.BAD_USE)
        return _order(asked, as_json=arguments.json)
    if arguments.plot is not None:
        return plot(asked.gpu, arguments.plot, as_json=arguments.json)
    cards = look(asked.gpu)
    for caveat in dict.fromkeys(heat.caveat for heat in cards if not heat.fresh):
        warn(caveat)
    now = unix_now()
    if arguments.json:
        print(report(cards, now).model_dump_json(indent=2, by_alias=True))
    else:
        encoding = sys.stdout.encoding
        blocks = ["\n".join(card_lines(heat, now, encoding)) for heat in cards]
        print("\n\n".join(blocks))
    return exit_code(cards)


def exit_code(cards: Sequence[CardHeat]) -> Exit:
    """UNREACHABLE where nobody speaks for any of the cards, WRONG where one isn't well."""
    if not any(heat.fresh for heat in cards):
        return Exit.UNREACHABLE
    return Exit.GOOD if all(heat.is_good for heat in cards) else Exit.WRONG


def _order(asked: Asked, *, as_json: bool) -> int:
    assert asked.gpu is not None, "an action has its card"
    cards = known_cards()
    if cards and asked.gpu not in cards:
        raise unknown_card(asked.gpu, cards)
    done = _carry_out(asked, asked.gpu)
    if as_json:
        answer: dict[str, object] = {"gpu": asked.gpu, "action": asked.action}
        if asked.state:
            answer["state"] = asked.state
        if asked.seconds:
            answer["seconds"] = asked.seconds
        print(json.dumps({**answer, "through": done.through}, indent=2))
    else:
        print(done.text)
    return Exit.GOOD


def _carry_out(asked: Asked, gpu_index: int) -> Done:
    if asked.action == "override":
        return thermal_orders.override(gpu_index, asked.state, asked.seconds)
    if asked.action == "release":
        return thermal_orders.release(gpu_index, asked.seconds)
    return thermal_orders.clear_override(gpu_index)


def _understand(words: Sequence[str]) -> Asked:
    """Raises ValueError saying what was found and what would be right."""
    match words:
        case []:
            return Asked()
        case ["override", gpu, state, seconds]:
            if state not in STATES:
                raise ValueError(f"override to {state!r}: allowed are {' and '.join(STATES)}")
            return Asked(_gpu(gpu), "override", state, _seconds(seconds))
        case ["clear-override", gpu]:
            return Asked(_gpu(gpu), "clear-override")
        case ["release", gpu, seconds]:
            return Asked(_gpu(gpu), "release", seconds=_seconds(seconds))
        case ["override", *_]:
            raise ValueError("override takes GPU, alert or critical, and SECONDS")
        case ["clear-override", *_]:
            raise ValueError("clear-override takes GPU")
        case ["release", *_]:
            raise ValueError("release takes GPU and SECONDS")
        case [gpu]:
            return Asked(_gpu(gpu))
    raise ValueError(f"one GPU, or an action; found {' '.join(words)!r}")


def _gpu(word: str) -> int:
    if not (word.isascii() and word.isdigit()):
        raise ValueError(f"a GPU is named by its index, 0 or more; found {word!r}")
    return int(word)


def _seconds(word: str) -> int:
    if not (word.isascii() and word.isdigit()) or not 1 <= int(word) <= LONGEST_SECONDS:
        raise ValueError(f"SECONDS is a whole number from 1 to {LONGEST_SECONDS}; found {word!r}")
    return int(word)
