# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden-sim``: look at the simulated cards, and hurt them."""

import argparse
import json
import socket
import sys
from pathlib import Path
from typing import Any, get_args

from gpuwarden.simulator import places
from gpuwarden.simulator.hold import HoldError, Wish, hold
from gpuwarden.simulator.messages import ONCE_FAULTS, SWITCH_FAULTS, ContextKind

ANSWER_SECONDS = 60.0
EXIT_FAILED, EXIT_UNREACHABLE = 1, 3
KINDS: tuple[str, ...] = get_args(ContextKind)
SIZE_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}
VALUE_FAULTS = ("external-limit", "xid")


class UnreachableError(Exception):
    """No simulator answers; the text says what to do."""


def main(argv: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 refused, 2 bad use, 3 no simulator."""
    arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
    try:
        if arguments.command == "hold":
            return hold_memory(arguments)
        answer = ask(arguments.socket, request_of(arguments))
    except UnreachableError as error:
        print(f"gpuwarden-sim: {error}", file=sys.stderr)
        return EXIT_UNREACHABLE
    if not answer["ok"]:
        print(f"gpuwarden-sim: {answer['error']}", file=sys.stderr)
        return EXIT_FAILED
    cards = answer["cards"]
    if arguments.command == "show" and arguments.gpu is not None:
        cards = [card for card in cards if card["gpu"] == arguments.gpu]
        if not cards:
            print(f"gpuwarden-sim: no GPU {arguments.gpu}", file=sys.stderr)
            return EXIT_FAILED
    if answer["note"]:
        print(f"gpuwarden-sim: {answer['note']}", file=sys.stderr)
    if arguments.json:
        print(json.dumps({"cards": cards}, indent=2))
    elif arguments.command == "show":
        print("\n".join(describe(card) for card in cards))
    return 0


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="gpuwarden-sim", description=__doc__)
    parser.add_argument(
        "--socket", type=Path, default=places.CONTROL_SOCKET, help=argparse.SUPPRESS
    )
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("show", help="state of every card")
    change = commands.add_parser("set", help="the air a card gets and how well it is cooled")
    change.add_argument("--ambient", type=float, metavar="CELSIUS")
    change.add_argument(
        "--resistance-factor",
        type=float,
        metavar="FACTOR",
        help="of the heat sink; 1.6: fan failed",
    )
    load = commands.add_parser("load", help="work beyond that of attached processes")
    load.add_argument("--fraction", type=float, required=True, metavar="0..1")
    fault = commands.add_parser("fault", help="break something")
    fault.add_argument("kind", type=fault_kind, metavar="KIND[=VALUE]", help=fault_names())
    clear = commands.add_parser("clear", help="mend faults; no load, 24 C, good cooling")
    reload = commands.add_parser("reload-driver", help="default settings, all contexts lost")
    holding = commands.add_parser("hold", help="hold memory of a card until this ends")
    holding.add_argument("--bytes", type=size, default="1G", metavar="SIZE", help="as 512M, 1G")
    holding.add_argument("--kind", choices=KINDS, default=KINDS[0], help="the list it stands in")
    holding.add_argument(
        *("--unlisted", "--hidden"),
        dest="kind",
        action="store_const",
        const="unlisted",
        help="in no list of the driver's",
    )
    holding.add_argument("--user", default="", metavar="NAME", help="whose program it is")
    for command in (change, load, fault, holding):
        command.add_argument("--gpu", type=int, required=True, metavar="INDEX")
    for command in (show, clear):
        command.add_argument("--gpu", type=int, metavar="INDEX", help="default: every card")
    for command in (show, change, load, fault, clear, reload):
        command.add_argument("--json", action="store_true", help="the state afterwards as JSON")
    return parser.parse_args(argv)


def size(text: str) -> int:
    """``512M`` in bytes."""
    digits, unit = (text[:-1], text[-1]) if text[-1:] in SIZE_UNITS else (text, "")
    if not (digits.isascii() and digits.isdigit()):
        raise argparse.ArgumentTypeError(f"a size is written as 512M or 1G (found {text!r})")
    return int(digits) * SIZE_UNITS.get(unit, 1)


def hold_memory(arguments: argparse.Namespace) -> int:
    """Hold memory until the context is ended; the exit status.

    :raises UnreachableError: no simulator, or not allowed.
    """
    cards = ask(arguments.socket, {"command": "show"})["cards"]
    uuids = {card["gpu"]: card["uuid"] for card in cards}
    if arguments.gpu not in uuids:
        print(f"gpuwarden-sim: no GPU {arguments.gpu}", file=sys.stderr)
        return EXIT_FAILED
    wish = Wish(
        arguments.gpu, uuids[arguments.gpu], arguments.bytes, arguments.kind, arguments.user
    )
    try:
        hold(arguments.socket.parent, wish)
    except HoldError as error:
        print(f"gpuwarden-sim: {error}", file=sys.stderr)
        return EXIT_FAILED
    return 0


def fault_names() -> str:
    """The faults for the help text."""
    with_values = [f"{kind}=VALUE" if kind in VALUE_FAULTS else kind for kind in ONCE_FAULTS]
    return ", ".join((*SWITCH_FAULTS, *with_values))


def fault_kind(text: str) -> tuple[str, float | None]:
    """``xid=79`` as kind and value."""
    kind, separator, value = text.partition("=")
    if kind not in SWITCH_FAULTS + ONCE_FAULTS:
        raise argparse.ArgumentTypeError(f"no such fault {kind!r}; there are {fault_names()}")
    if bool(separator) != (kind in VALUE_FAULTS):
        wanted = f"needs a value, as in {kind}=250" if not separator else "takes no value"
        raise argparse.ArgumentTypeError(f"{kind} {wanted}")
    try:
        return kind, float(value) if separator else None
    except ValueError:
        raise argparse.ArgumentTypeError(f"{kind} needs a number (found {value!r})") from None


def request_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The command line as a request."""
    request: dict[str, Any] = {"command": arguments.command}
    if arguments.command == "set":
        request["ambient_celsius"] = arguments.ambient
        request["resistance_factor"] = arguments.resistance_factor
    elif arguments.command == "load":
        request["fraction"] = arguments.fraction
    elif arguments.command == "fault":
        request["kind"], request["value"] = arguments.kind
    if arguments.command in ("set", "load", "fault", "clear"):
        request["gpu"] = arguments.gpu
    return request


def ask(path: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Send one request; the answer.

    :raises UnreachableError: no simulator, not allowed, or it hung up.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_SECONDS)
        try:
            connection.connect(str(path))
            connection.sendall(json.dumps(request).encode() + b"\n")
            line = connection.makefile("rb").readline()
        except PermissionError as error:
            raise UnreachableError(f"{path} is for root: run this with sudo") from error
        except OSError as error:
            raise UnreachableError(
                f"the simulator doesn't answer on {path} ({error}): "
                "is gpuwarden-sim.service running?"
            ) from error
    if not line:
        raise UnreachableError(f"the simulator hung up on {path}: see its journal")
    answer: dict[str, Any] = json.loads(line)
    return answer


def describe(card: dict[str, Any]) -> str:
    """One card on a few lines."""
    memory = card["memory_celsius"]
    hbm = f", HBM {memory:.1f} C" if memory is not None else ""
    lock = card["sm_lock_mhz"]
    lines = [
        f"GPU {card['gpu']}: {card['name']} at {card['pci_address']}, {card['uuid']}",
        f"  die {card['die_celsius']:.1f} C, sink {card['sink_celsius']:.1f} C{hbm}, "
        f"air {card['ambient_celsius']:.1f} C, resistance x {card['resistance_factor']:g}",
        f"  {card['watts']:.0f} W of {card['power_limit_watts']:.0f} W, load {card['load']:.2f}, "
        f"SM {card['sm_mhz']} MHz" + (f" (locked {lock[0]} to {lock[1]})" if lock else ""),
        f"  VRAM {card['vram_used_bytes'] / 2**20:.0f} MiB used, "
        f"{len(card['contexts'])} contexts, faults: {', '.join(card['faults']) or 'none'}",
    ]
    lines += [
        f"    process {context['pid']}: {context['vram_bytes'] / 2**20:.0f} MiB, "
        f"load {context['load']:.2f}"
        for context in card["contexts"]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
