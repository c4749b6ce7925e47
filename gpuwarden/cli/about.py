# SPDX-License-Identifier: Apache-2.0
"""What each command is for, in full: for ``--help`` and the manual pages. Pure."""

import textwrap

ABOUT = {
    "status": "Whether the service is healthy, and if not, why, and which commands help; workers, "
    "cards, requests, orphans and the last events. Works with the supervisor dead, from what the "
    "other parts say, and says so.",
    "top": "What gpuwarden status shows, again every second, with the last five minutes of each "
    "card as small charts, and keys to start, restart or drain a worker and to override a card; "
    "each of these asks first. It needs a terminal of at least 64 x 16 characters and no colours: "
    "NO_COLOR=1 leaves them out. With --json it prints one status a line.",
    "gpus": "The cards' temperatures, power and its limit, load, memory and thermal state, and why "
    "one of them is not normal.",
    "thermal": "Its state, temperatures and thresholds, limits, what can't be used on the card "
    "and why, last events. A picture in a .png file needs "
    "python3-pil. An override makes a card cooler only, and ends by itself.",
    "workers": "Who runs where, since when, and what is wrong with it. An action comes back when "
    "it is done, with --no-wait once it is accepted; it goes on if you press Ctrl-C.",
    "orphans": "Each with its class, and what it holds. Unknown is not none: it says of which card "
    "nobody knows.",
    "reap": "By pidfd, so that no other process can be met, and only one that is none of a running "
    "worker.",
    "submit": "Each image is answered once, whatever is restarted meanwhile; a second run submits "
    "nothing twice.",
    "jobs": "To list, cancel and delete them needs root, or the API key. save overwrites no file.",
    "placement": "As a table and a picture of the sockets. With --dry-run the plan and the units "
    "that the configuration files would give now, with nothing changed.",
    "simulate": "Runs the guard's own policy against a model of the card through a scenario, and "
    "prints what came of it. Needs neither card nor service nor root.",
    "doctor": "Driver, placement, memory, storage, kernel, permissions, bus, other programs that "
    "hold the cards: what is wrong comes first, with the reason and how to mend it. Works with the "
    "service down. A doubt is no failure. --prove-actuators sets a card's power limit and SM clock "
    "5 % lower, reads them back, puts back what was there and prints a dated protocol; it asks "
    "first, needs root, and refuses while the card's thermal guard is at work.",
    "baseline": "What this node does over a time, recorded: times, answers, errors, heat, power, "
    "memory, and how service and host are set. Change one thing, record again, compare: a plain "
    "verdict, and only where it is more than noise. compare --plot draws both as SVG or PNG.",
    "config": "Every problem at once, with file, line, what was found and what is allowed.",
    "logs": "A front end of journalctl: what it prints is journalctl's.",
    "reload": "The service reads the configuration files again. Who finds them wrong keeps what it "
    "has, and says so; then the exit status is 1.",
    "version": "Of the command. gpuwarden status has that of the service.",
}
# Those that take words: how they are written, and what they do.
ACTIONS = {
    "workers": (
        ("start N", "start worker N, or give a drained one work again"),
        ("stop N", "let it finish what it does, then stop it; it stays down"),
        ("restart N", "the same, and start it again"),
        ("drain N", "give it no new work; it stays up"),
        ("rolling-restart", "restart all workers, one card at a time"),
    ),
    "thermal": (
        (
            "override GPU alert|critical SECONDS",
            "cool the card as in that state, for 1 to 86400 seconds",
        ),
        ("clear-override GPU", "end an override or a release now"),
        ("release GPU SECONDS", "let go of the card for a reset; no worker may run on it"),
    ),
    "jobs": (
        ("list", "all of them; the default"),
        ("show ID...", "these, with their answers"),
        ("save ID...", "write their results to files"),
        ("cancel ID...", "work on them no more"),
        ("delete ID...", "forget them and their results"),
    ),
    "config": (("check [FILE]", "print every problem, with file and line"),),
}
_INDENT = " " * 24


def described(name: str, summary: str) -> str:
    """The beginning of a command's help text."""
    about = textwrap.fill(ABOUT.get(name, ""), 80, break_on_hyphens=False)
    return "\n\n".join(part for part in (f"{summary[0].upper()}{summary[1:]}.", about) if part)


def actions_shown(name: str) -> str:
    """The actions of a command as a part of its help text; nothing where it has none."""
    lines = ["actions:"]
    for written, what in ACTIONS.get(name, ()):
        head = f"  {written:<{len(_INDENT) - 2}}"
        lines += [f"{head}{what}"] if len(written) < len(_INDENT) - 3 else [head, _INDENT + what]
    return "\n".join(line.rstrip() for line in lines) if len(lines) > 1 else ""
