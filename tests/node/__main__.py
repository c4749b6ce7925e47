# SPDX-License-Identifier: Apache-2.0
"""The test node by hand: ``python -m tests.node run COMMAND``, ``shell``, ``build``, ``kvm``."""

import argparse
import signal
import sys
from pathlib import Path

from tests.node import cache, levels, terminal
from tests.node.channel import NodeError
from tests.node.image import RECIPES

# No test has any other that already runs.
RUNNING_SUITE = "bookworm"


def main(argv: list[str]) -> int:
    """Returns the command's exit status, or 1 where the node failed."""
    arguments = parser().parse_args(argv)
    # So that the node's folder is removed: as an exception, not as a sudden end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return dispatch(arguments)
    except NodeError as error:
        print(f"node: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def dispatch(arguments: argparse.Namespace) -> int:
    """Does what the command line says."""
    if arguments.action == "build":
        return build(arguments.suite or list(RECIPES), arguments.bare)
    if arguments.action == "kvm":
        return 0 if levels.machine(RUNNING_SUITE).kvm else 1
    config = arguments.config.read_text() if arguments.config else levels.DEFAULT_CONFIG
    suite = arguments.suite[0] if arguments.suite else "bookworm"
    if arguments.bare:
        opened = levels.booted_node(suite)
    else:
        opened = levels.installed_node(suite, config=config)
    with opened as node:
        if arguments.action == "shell":
            return terminal.interactive(node)
        return terminal.pass_through(node, arguments.command)


def build(suites: list[str], bare: bool) -> int:
    """Builds images and snapshots that are not there yet; prints what each image took."""
    for suite in suites:
        machine = levels.machine(suite)
        levels.booted_level(machine)
        figures = machine.image.figures
        cache.say(
            f"{suite}: {figures['downloaded_bytes'] / 1e6:.0f} MB were downloaded in "
            f"{figures['download_seconds']} s, the image built in {figures['total_seconds']} s"
        )
        if not bare:
            levels.unstarted_level(machine, levels.debs())
        if not bare and suite == RUNNING_SUITE:
            levels.installed_level(machine, levels.debs(), levels.DEFAULT_CONFIG)
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    described = argparse.ArgumentParser(prog="python -m tests.node", description=__doc__)
    actions = described.add_subparsers(dest="action", required=True)
    run = actions.add_parser("run", help="run a command as root in a fresh node")
    shell = actions.add_parser("shell", help="a root shell in a fresh node")
    built = actions.add_parser("build", help="build images and snapshots that are missing")
    actions.add_parser("kvm", help="exit with 0 if KVM runs the nodes, with 1 if they are emulated")
    for action in (run, shell, built):
        action.add_argument("--suite", choices=RECIPES, action="append", help="Debian release")
        action.add_argument("--bare", action="store_true", help="without gpuwarden's packages")
    for action in (run, shell):
        action.add_argument("--config", type=Path, help="configuration file to start it with")
    run.add_argument("command", help="a line for bash")
    return described


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
