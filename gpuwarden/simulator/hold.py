# SPDX-License-Identifier: Apache-2.0
"""``gpuwarden-sim hold``: a program of somebody else's that holds memory of a card."""

import json
import os
import pwd
import socket
from dataclasses import dataclass
from pathlib import Path

from gpuwarden.simulator import places

ANSWER_SECONDS = 60.0


class HoldError(Exception):
    """The card gave no memory; the text says why."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be held: so much of which card, and the driver's list that shows it.

    :ivar user: whose program it is; empty: the caller's.
    """

    gpu: int
    uuid: str
    vram_bytes: int
    kind: str
    user: str = ""


def hold(directory: Path, wish: Wish) -> None:
    """Hold it until the simulator ends the context, or a signal this process.

    :raises HoldError: no such user, no answer, or the card hasn't so much left.
    """
    if wish.user:
        _become(wish.user)
    try:
        # What a program that uses a card has open, whether the driver lists it or not.
        with (
            places.device_file(directory, wish.uuid).open("rb"),
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection,
        ):
            connection.settimeout(ANSWER_SECONDS)
            connection.connect(str(directory / places.ATTACH_SOCKET_NAME))
            request = {"uuid": wish.uuid, "vram_bytes": wish.vram_bytes, "kind": wish.kind}
            connection.sendall(json.dumps(request).encode() + b"\n")
            answers = connection.makefile("rb")
            answer = json.loads(answers.readline() or b'{"ok": false, "error": "it hung up"}')
            if not answer["ok"]:
                raise HoldError(str(answer["error"]))
            print(f"holding {wish.vram_bytes} bytes of GPU {wish.gpu}", flush=True)
            connection.settimeout(None)
            answers.read()
    except OSError as error:
        raise HoldError(f"the simulator doesn't answer in {directory}: {error}") from error


def _become(user: str) -> None:
    try:
        entry = pwd.getpwnam(user)
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    except (KeyError, PermissionError) as error:
        raise HoldError(f"can't run as {user}: {error}") from error
