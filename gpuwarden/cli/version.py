# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden version``."""

import argparse
import json

from gpuwarden import __version__
from gpuwarden.cli.exits import Exit
from gpuwarden.cli.options import add_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Only ``--json``."""
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the version."""
    print(json.dumps({"version": __version__}) if arguments.json else f"gpuwarden {__version__}")
    return Exit.GOOD
