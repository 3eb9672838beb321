"""Ceph's own tools, told of one pool. They run as children of bounded time; the key reaches them by a descriptor."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from domzero.host.process import ProcessError, run
from domzero.host.storage import numbers
from domzero.host.storage.protocol import StorageError
from domzero.host.storage.rbd import report as rbd_report
from domzero.host.storage.rbd.report import Image, Room
from domzero.host.storage.rbd.settings import RbdSettings

log = logging.getLogger(__name__)

CONNECT_SECONDS = 10
"""How long monitors may take to answer."""
OPERATION_SECONDS = 30
"""How long one step in the cluster may take."""
PATIENCE = 45.0
"""Seconds that a command may take in all."""
LONG = 900.0
"""The same for commands that look at every object of an image."""


class RbdTool:
    """The images of a pool. Failures are `StorageError` with the number of what they mean."""

    def __init__(self, settings: RbdSettings, patience: float = PATIENCE) -> None:
        self.settings = settings
        self._patience = patience
        self._counts = True

    async def names(self) -> list[str]:
        """All images of the pool."""
        return rbd_report.names_in(await self._rbd("ls", "--format", "json", "--pool", self.settings.pool))

    async def images(self) -> list[Image]:
        """All images of the pool, and their sizes; what they take in it where that can be told in time.

        `rbd du` dies of an image of no size, and takes long where images lack `fast-diff`; it is not asked again then.
        """
        reason = ""
        if self._counts:
            try:
                return rbd_report.usage_in(await self._rbd("du", "--format", "json", "--pool", self.settings.pool))
            except StorageError as error:
                reason = error.text
        said = await self._rbd("ls", "-l", "--format", "json", "--pool", self.settings.pool)
        if self._counts:
            log.info("what disks take in the pool %s is not known: %s", self.settings.pool, reason)
            self._counts = False
        return rbd_report.images_in(said)

    async def size(self, name: str) -> int:
        """Of one image, in bytes."""
        return rbd_report.size_in(await self._rbd("info", "--format", "json", self._spec(name)))

    async def used(self, name: str) -> int:
        """What an image takes, in bytes; -1 where nobody knows."""
        try:
            found = rbd_report.usage_in(await self._rbd("du", "--format", "json", self._spec(name)))
        except StorageError:
            return -1
        return next((image.used for image in found if image.name == name), -1)

    async def is_open(self, name: str) -> bool:
        """Whether anybody in the cluster has the image open."""
        return rbd_report.is_watched(await self._rbd("status", "--format", "json", self._spec(name)))

    async def room(self) -> Room:
        """Of the pool."""
        return rbd_report.room_in(await self._run("ceph", "df", "--format", "json"), self.settings.pool)

    async def create(self, name: str, size: int) -> None:
        """Make a blank image; one of that name that is there already is an error."""
        await self._rbd("create", "--size", f"{size}B", self._spec(name))

    async def resize(self, name: str, size: int) -> None:
        """Grow an image, also one that is open."""
        await self._rbd("resize", "--no-progress", "--size", f"{size}B", self._spec(name))

    async def rename(self, name: str, final: str) -> None:
        """Give an image another name, which must be free."""
        await self._rbd("mv", self._spec(name), self._spec(final))

    async def remove(self, name: str) -> None:
        """Remove an image; one that is gone is no error."""
        try:
            await self._rbd("rm", "--no-progress", self._spec(name), patience=LONG)
        except StorageError as error:
            if error.number != numbers.DISK_MISSING:
                raise

    def _spec(self, name: str) -> str:
        return f"{self.settings.pool}/{name}"

    async def _rbd(self, *arguments: str, patience: float | None = None) -> bytes:
        return await self._run("rbd", *arguments, patience=patience)

    async def _run(self, program: str, *arguments: str, patience: float | None = None) -> bytes:
        with _key(self.settings.key) as (descriptors, key):
            argv = [program, *arguments, *self.settings.arguments(), *key, *_limits()]
            try:
                said = await run(argv, timeout=patience or self._patience, check=False, pass_fds=descriptors)
            except ProcessError as error:
                raise rbd_report.meaning(str(error)) from error
        if said.returncode != 0:
            raise rbd_report.meaning(said.stderr.decode(errors="replace"))
        return said.stdout


def _limits() -> Sequence[str]:
    return (
        "--client_mount_timeout",
        str(CONNECT_SECONDS),
        "--rados_mon_op_timeout",
        str(CONNECT_SECONDS),
        "--rados_osd_op_timeout",
        str(OPERATION_SECONDS),
        "--log_file",
        "/dev/null",
    )


@contextmanager
def _key(key: str) -> Iterator[tuple[tuple[int, ...], tuple[str, ...]]]:
    if not key:
        yield (), ()
        return
    descriptor = os.memfd_create("key", os.MFD_CLOEXEC)
    try:
        os.pwrite(descriptor, key.encode(), 0)
        yield (descriptor,), ("--keyfile", f"/dev/fd/{descriptor}")
    finally:
        os.close(descriptor)
