# SPDX-License-Identifier: Apache-2.0
"""What each command is for, by example: for ``--help`` and the manual pages. Pure."""

from collections.abc import Sequence

Example = tuple[str, str]

FIRST: tuple[Example, ...] = (
    ("gpuwarden status", "is all well, and if not, what helps"),
    ("gpuwarden top", "the same, live, with keys"),
    ("gpuwarden doctor", "will this node serve well"),
    ("gpuwarden logs --worker 1 -x", "what happened to worker 1, explained"),
    ("gpuwarden workers restart 1", "once it has finished what it has"),
    ("gpuwarden thermal override 0 alert 600", "keep card 0 cooler for ten minutes"),
    ("gpuwarden submit /data/ct --question 'Any bleeding?' --wait", "ask of a folder of images"),
)
OF: dict[str, tuple[Example, ...]] = {
    "status": (
        ("gpuwarden status", "now"),
        ("gpuwarden status --watch 5", "every five seconds, until Ctrl-C"),
        ("gpuwarden status --json | jq -r .state", "for a script"),
    ),
    "top": (
        ("gpuwarden top", "? tells the keys, q quits"),
        ("gpuwarden top --every 5", "on a slow line"),
    ),
    "gpus": (
        ("gpuwarden gpus", "heat, power, memory and state of each"),
        ("gpuwarden gpus --json | jq '.[0].temperature_celsius'", "for a script"),
    ),
    "thermal": (
        ("gpuwarden thermal 0", "why card 0 is as it is; its last hour"),
        ("gpuwarden thermal 0 --plot card0.svg", "the same as a picture"),
        ("gpuwarden thermal override 0 alert 600", "keep it cooler for ten minutes"),
    ),
    "workers": (
        ("gpuwarden workers", "who runs where, and what is wrong"),
        ("gpuwarden workers drain 1", "no new work for worker 1, until start"),
        ("gpuwarden workers rolling-restart", "take settings into use, card by card"),
    ),
    "orphans": (("gpuwarden orphans", "who holds a card's memory and should not"),),
    "reap": (("gpuwarden reap 4711", "one of those that orphans lists"),),
    "submit": (
        ("gpuwarden submit ct.dcm --question 'Any bleeding?' --wait", "and wait for the answer"),
        ("gpuwarden submit /data/ct --question 'Any bleeding?' --priority -10", "at leisure"),
    ),
    "baseline": (
        ("gpuwarden baseline record before --seconds 600", "what it does now, for ten minutes"),
        ("gpuwarden baseline compare before after", "what one change has brought"),
        ("gpuwarden baseline compare before after --plot change.svg", "the same as a picture"),
    ),
    "jobs": (
        ("gpuwarden jobs --status failed", "which have failed, and why"),
        ("gpuwarden jobs show 0123456789abcdef0123456789abcdef", "one of them, with its answer"),
        ("gpuwarden jobs save 0123456789abcdef0123456789abcdef --to results", "as a file"),
    ),
    "placement": (
        ("gpuwarden placement", "who runs on which CPUs and memory, and why"),
        ("gpuwarden placement --dry-run", "what the files as they are would give"),
    ),
    "simulate": (
        (
            "gpuwarden simulate --card H200 --policy regulated --scenario fan-failure.json",
            "an H200 whose fan fails; scenarios are in /usr/share/gpuwarden/scenarios",
        ),
        (
            "gpuwarden simulate --card T4 --policy stepped --scenario hot.json --plot a.svg",
            "a T4 in a hot spell, as a picture",
        ),
    ),
    "doctor": (
        ("gpuwarden doctor", "what is wrong, and how to mend it"),
        ("gpuwarden doctor --all", "what is right, too"),
        ("gpuwarden doctor --prove-actuators 0", "can card 0 be slowed down at all?"),
    ),
    "config": (
        ("gpuwarden config check", "before gpuwarden reload"),
        ("gpuwarden config check /root/new.toml", "a file that is not in its place yet"),
    ),
    "logs": (
        ("gpuwarden logs -f", "all of it, as it comes"),
        ("gpuwarden logs --gpu 0 -x", "what is said of card 0, explained"),
        ("gpuwarden logs --event worker-ended -n 5", "the last five of one kind"),
    ),
    "reload": (("gpuwarden config check && gpuwarden reload", "take a change into use"),),
    "version": (("gpuwarden version", "of this command"),),
}
_LONGEST_BESIDE = 39  # a longer command has its explanation below it; a line has 80 at most


def shown(examples: Sequence[Example]) -> str:
    """As the end of a help text; nothing where there are none."""
    if not examples:
        return ""
    width = max((len(line) for line, _ in examples if len(line) <= _LONGEST_BESIDE), default=0)
    lines = ["examples:"]
    for line, what in examples:
        if len(line) <= _LONGEST_BESIDE:
            lines.append(f"  {line:<{width}}  {what}")
        else:
            lines += [f"  {line}", f"      {what}"]
    return "\n".join(lines)
