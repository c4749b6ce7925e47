# SPDX-License-Identifier: Apache-2.0
"""A file whose writers sleep uninterruptibly: on a loop-mounted file system that is frozen.

That is how a wedged driver looks from outside: state D, no signal ends it. Where loop mounts are
impossible (no root, no loop device) the library falls back to blocking without end, which a kill
does end.
"""

import asyncio
import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)

IMAGE_BYTES = 4 * 1024 * 1024
COMMAND_SECONDS = 20.0


class FreezeError(Exception):
    """A step of setting up the frozen file system failed; the text has the tool's own words."""


class FrozenFile:
    """The frozen file system under the simulator's run directory."""

    def __init__(self, mount_point: Path) -> None:
        self._mount_point = mount_point
        self._image = mount_point.with_suffix(".img")
        self.path = mount_point / "hang"

    async def set_up(self) -> None:
        """Make the file system, put the file on it, freeze it. Nothing to do if it is there.

        :raises FreezeError: what couldn't be done, and why; nothing is left mounted then.
        """
        if self.is_mounted():
            return
        try:
            self._make_room()
            await run("mkfs.ext4", "-q", "-F", "-O", "^has_journal", str(self._image))
            await run("mount", "-o", "loop,nosuid,nodev,noexec", str(self._image), self._point)
            self._make_file()
            await run("fsfreeze", "--freeze", self._point)
        except (FreezeError, OSError) as error:
            await self.tear_down()
            raise FreezeError(str(error)) from error

    async def tear_down(self) -> None:
        """Let the sleepers go and remove everything; safe to call at any time."""
        if self.is_mounted():
            try:
                await run("fsfreeze", "--unfreeze", self._point)
            except FreezeError as error:
                log.info("not frozen: %s", error)
            try:
                await run("umount", "--lazy", self._point)
            except FreezeError as error:
                log.error("the file system for hanging calls stays mounted: %s", error)
                return
        self._image.unlink(missing_ok=True)
        if self._mount_point.exists():
            self._mount_point.rmdir()

    def is_mounted(self) -> bool:
        """Whether a file system, ours or one left by a killed daemon, is mounted there."""
        return os.path.ismount(self._mount_point)

    def _make_room(self) -> None:
        self._mount_point.mkdir(mode=0o755, exist_ok=True)
        with self._image.open("wb") as image:
            image.truncate(IMAGE_BYTES)

    def _make_file(self) -> None:
        self.path.touch()
        self.path.chmod(0o666)  # whoever may read sensors may hang on them

    @property
    def _point(self) -> str:
        return str(self._mount_point)


async def run(*command: str) -> None:
    """Run a tool to its end.

    :raises FreezeError: it isn't there, failed, or took longer than 20 s.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError as error:
        raise FreezeError(f"{command[0]}: {error}") from error
    try:
        output, _ = await asyncio.wait_for(process.communicate(), COMMAND_SECONDS)
    except TimeoutError as error:
        process.kill()
        raise FreezeError(f"{command[0]}: no end after {COMMAND_SECONDS:g} s") from error
    if process.returncode != 0:
        text = output.decode("utf-8", "replace").strip()
        raise FreezeError(f"{command[0]}: exit status {process.returncode}: {text}")
