"""Options that several commands share."""

import argparse


def add_json(parser: argparse.ArgumentParser) -> None:
    """The option that every command has."""
    parser.add_argument("--json", action="store_true", help="for scripts: print JSON")
