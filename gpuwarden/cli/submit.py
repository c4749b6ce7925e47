# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden submit``: images, or whole folders of them, as durable jobs."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gpuwarden.cli.bar import Bar
from gpuwarden.cli.exits import CommandError, Exit
from gpuwarden.cli.frontdoor import add_door, door_of
from gpuwarden.cli.options import add_json
from gpuwarden.cli.output import warn
from gpuwarden.cli.submission import Found, Image, Submission, Submitted, find_images
from gpuwarden.cli.waiting import Waiting
from gpuwarden.cli.working import working
from gpuwarden.text import one_line

PROBLEMS_SHOWN = 10
WAIT_AGAIN = (
    "what was taken is kept: the same command, without --again, waits for it again, and gpuwarden"
    " jobs show tells how it stands"
)
QUESTION_LIMIT_BYTES = 8000  # it stands in the request's first line, which may have 8190
DEFAULT_PARALLEL = 4  # one reads, one encrypts, one syncs, one is on its way


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``FILES... --question TEXT [--priority N] [--wait | --watch] [--again] [--json]``."""
    parser.add_argument(
        "files", metavar="FILE", nargs="+", type=Path, help="an image, or a folder of images"
    )
    parser.add_argument("--question", metavar="TEXT", help="what to ask of each image")
    parser.add_argument(
        "--priority", metavar="N", type=int, default=0, help="-100 to 100, the larger first"
    )
    parser.add_argument("--wait", action="store_true", help="return when all are answered")
    parser.add_argument(
        "--watch", action="store_true", help="wait, and tell of each answer as it comes"
    )
    parser.add_argument(
        "--again",
        action="store_true",
        help="submit also what was submitted before with the same question",
    )
    parser.add_argument(
        "--parallel", metavar="N", type=int, default=DEFAULT_PARALLEL, help="uploads at a time"
    )
    add_door(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Submit; 1 where an image was not taken or, with --wait, not answered."""
    if not -100 <= arguments.priority <= 100:
        raise CommandError("--priority is a number from -100 to 100", Exit.BAD_USE)
    if not 1 <= arguments.parallel <= 64:
        raise CommandError("--parallel is a number from 1 to 64", Exit.BAD_USE)
    check_question(arguments.question)
    with working("looking for images"):
        found = find_images(arguments.files)
    tell_left_out(found)
    images = found.images
    if not images:
        raise CommandError(
            "there is no DICOM, PNG or JPEG file there: name others, or their folder", Exit.WRONG
        )
    submission = Submission(
        door_of(arguments), arguments.question, arguments.priority, again=arguments.again
    )
    with Bar("submitted", len(images)) as bar:
        submitted = submission.run(images, arguments.parallel, bar.step)
    waits = arguments.wait or arguments.watch
    if waits:
        try:
            wait(arguments, submitted)
        except CommandError as error:
            tell(arguments, submitted)
            raise CommandError(f"{error}; {WAIT_AGAIN}", error.code) from error
    tell(arguments, submitted)
    is_good = not found.problems and all(one.is_good(answered=waits) for one in submitted)
    return Exit.GOOD if is_good else Exit.WRONG


def check_question(question: str | None) -> None:
    """Refuse what can't be sent. Raises CommandError."""
    try:
        size = len(quote(question or "", safe=""))
    except UnicodeEncodeError as error:
        raise CommandError("--question is not in this terminal's encoding", Exit.BAD_USE) from error
    if size > QUESTION_LIMIT_BYTES:
        text = f"--question has {size} bytes as it is sent, {QUESTION_LIMIT_BYTES} are the most"
        raise CommandError(text, Exit.BAD_USE)


def tell_left_out(found: Found) -> None:
    """What in the folders is not submitted, and why."""
    if found.skipped:
        warn(f"{found.skipped} files in these folders are no DICOM, PNG or JPEG and were left out")
    for problem in found.problems[:PROBLEMS_SHOWN]:
        warn(f"{problem}: left out")
    more = len(found.problems) - PROBLEMS_SHOWN
    if more > 0:
        warn(f"{more} more could not be looked at")


def wait(arguments: argparse.Namespace, submitted: list[Submitted]) -> None:
    """Until every job that was taken has ended. Raises CommandError (3) where none is told of."""
    taken = [one for one in submitted if one.id]
    with Bar("answered", len(taken)) as bar:

        def step(one: Submitted) -> None:
            if arguments.watch and not arguments.json:
                bar.clear()
                print(line(one), flush=True)
            bar.step()

        Waiting(door_of(arguments)).run(taken, step)


def tell(arguments: argparse.Namespace, submitted: list[Submitted]) -> None:
    """What came of it: one line each, or JSON."""
    if arguments.json:
        counts = {"files": len(submitted), "taken": sum(bool(one.id) for one in submitted)}
        counts["new"] = sum(one.is_new for one in submitted)
        jobs = [document(one) for one in submitted]
        print(json.dumps({"schema": 1, "counts": counts, "jobs": jobs}, indent=2))
        return
    for one in submitted:
        if not one.id or not one.job or not arguments.watch:
            print(line(one))
    known = sum(bool(one.id) and not one.is_new for one in submitted)
    if known:
        warn(f"{known} of them had been submitted before (--again submits them once more)")
    refused = [one for one in submitted if not one.id]
    if refused:
        print(
            f"gpuwarden: {len(refused)} were not taken; the same command tries these again",
            file=sys.stderr,
        )


def line(one: Submitted) -> str:
    """One file for people and simple scripts: the ID, or a dash, comes first.

    Whatever a file is called and a model says, it is one line and leaves the terminal as it is.
    """
    return one_line(_line(one))


def _line(one: Submitted) -> str:
    if not one.id:
        return f"{'-':<32}  {one.image.path}: {one.problem}"
    text = f"{one.id}  {one.image.path}"
    if not one.job:
        return text
    if "result" in one.job:
        answer = json.dumps(one.job["result"]["answer"], ensure_ascii=False)
        file = " and a file (gpuwarden jobs save)" if "content" in one.job["result"] else ""
        return f"{text}: {answer}{file}"
    error = one.job.get("error")
    return f"{text}: {error['type']}: {error['message']}" if error else f"{text}: {one.status}"


def document(one: Submitted) -> dict[str, Any]:
    """One file for scripts."""
    found: dict[str, Any] = {"file": str(one.image.path), "id": one.id or None, "new": one.is_new}
    if one.problem:
        found["error"] = one.problem
    return found | ({"job": one.job} if one.job else {})


__all__ = ["Image", "add_arguments", "run"]
