# SPDX-License-Identifier: Apache-2.0
"""gpuwarden(1), and a page for each of its commands, from the tree of arguments."""

import argparse
import re
from collections.abc import Iterator, Sequence

from gpuwarden.cli.about import ABOUT, ACTIONS
from gpuwarden.cli.examples import FIRST, OF, Example
from gpuwarden.cli.exits import Exit
from gpuwarden.cli.live.views import KEYS_EXPLAINED
from gpuwarden.cli.main import COMMANDS, tree
from tools.manual.roff import Page, escaped

MEANINGS = {
    Exit.GOOD: "all is well",
    Exit.WRONG: "something is wrong; the output says what",
    Exit.BAD_USE: "the command was used in a wrong way",
    Exit.UNREACHABLE: "the service can't be reached",
}
FILES = (
    (
        "/etc/gpuwarden/gpuwarden.toml",
        "the configuration, every key explained; the files of /etc/gpuwarden/conf.d go over it in "
        "the order of their names",
    ),
    ("/usr/lib/systemd/catalog/gpuwarden.catalog", "explanations of all events"),
    ("/usr/share/gpuwarden/scenarios", "examples of scenarios for gpuwarden simulate"),
    ("/usr/share/doc/gpuwarden", "how to install and operate it, and why it is as it is"),
)
Xref = tuple[str, int]


def pages(date: str, version: str) -> Iterator[Page]:
    """The command's page, and one a subcommand."""
    parser, _ = tree(COMMANDS)
    (subparsers,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    yield _main(Page("gpuwarden", 1, "run, place, cool and watch a GPU node", date, version))
    for name, summary in COMMANDS.items():
        page = Page(f"gpuwarden-{name}", 1, summary, date, version)
        yield _command(page, name, subparsers.choices[name])


def _main(page: Page) -> Page:
    page.section_of("Synopsis")
    page.lines += [".B gpuwarden", ".I command", ".RI [ option \\&...]"]
    page.section_of("Description")
    page.paragraph(
        "The operator's view of the services that medgemma-guard.service(8) supervises. It asks "
        "the running service over the system bus, so it needs root or membership of the group "
        "`gpuwarden`. What changes something needs what polkit allows its user as well."
    )
    page.section_of("Commands")
    for name, summary in COMMANDS.items():
        page.item(name, f"{summary}: gpuwarden-{name}(1)")
    _examples(page, FIRST)
    _exit_status(page)
    page.section_of("Environment")
    page.item("NO_COLOR", "no colours, whatever it is set to")
    page.item("GPUWARDEN_URL", "where submit and jobs find the service")
    page.item("GPUWARDEN_API_KEY_FILE", "a file with the API key, for the same")
    page.section_of("Events")
    page.paragraph(
        "Each event in the journal has a MESSAGE_ID with an entry in the journal's catalogue, and "
        "its name in the field GPUWARDEN_EVENT. `gpuwarden logs -x` shows the entries."
    )
    page.section_of("Files")
    for file, what in FILES:
        page.item(file, what)
    page.see_also(
        [
            *((f"gpuwarden-{name}", 1) for name in COMMANDS),
            *(("gpuwarden.toml", 5), ("org.gpuwarden1", 5), ("medgemma-guard.service", 8)),
            *(("busctl", 1), ("journalctl", 1), ("systemctl", 1)),
        ]
    )
    return page


def _command(page: Page, name: str, parser: argparse.ArgumentParser) -> Page:
    page.section_of("Synopsis")
    page.verbatim(_usage(parser))
    page.section_of("Description")
    page.paragraph(str(ABOUT[name]))
    if actions := ACTIONS.get(name, ()):
        page.section_of("Actions")
        for written, what in actions:
            page.item(written, what)
    if name == "top":
        page.section_of("Keys")
        for key, what in KEYS_EXPLAINED:
            page.item(key, what)
    page.section_of("Options")
    for argument in _arguments(parser):
        page.item(_written(argument), str(argument.help) % {"default": argument.default})
    _examples(page, OF.get(name, ()))
    _exit_status(page)
    page.see_also([("gpuwarden", 1), *_related(name)])
    return page


def _related(name: str) -> Sequence[Xref]:
    return {
        "config": (("gpuwarden.toml", 5),),
        "reload": (("gpuwarden.toml", 5),),
        "logs": (("journalctl", 1),),
        "thermal": (("medgemma-thermal@.service", 8),),
        "workers": (("medgemma-worker@.service", 8),),
    }.get(name, (("medgemma-guard.service", 8),))


def _usage(parser: argparse.ArgumentParser) -> list[str]:
    """As --help has it, one form a line, whatever terminal this runs on."""
    text = " ".join(parser.format_usage().removeprefix("usage: ").split())
    return [f"gpuwarden{form}".rstrip() for form in re.split(r"\bgpuwarden(?= )", text)[1:]]


def _arguments(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """All that it takes, those of its own commands included; what is hidden stays so."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _arguments(below)
        elif action.help not in (None, argparse.SUPPRESS) and action.dest != "help":
            yield action


def _written(action: argparse.Action) -> str:
    value = action.metavar or (
        "|".join(map(str, action.choices)) if action.choices else action.dest.upper()
    )
    if not action.option_strings:
        return str(value)
    names = ", ".join(action.option_strings)
    if action.nargs == 0:
        return names
    return f"{names} [{value}]" if action.nargs == "?" else f"{names} {value}"


def _examples(page: Page, examples: Sequence[Example]) -> None:
    page.section_of("Examples")
    for written, what in examples:
        page.lines += [".TP", f"\\fB{escaped(written)}\\fR", escaped(what)]


def _exit_status(page: Page) -> None:
    page.section_of("Exit status")
    for code, meaning in MEANINGS.items():
        page.item(str(int(code)), meaning)
