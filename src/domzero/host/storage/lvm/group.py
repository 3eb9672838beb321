"""An attached repository: its volume group, who works on which of its disks, and the lock against other processes."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from domzero.host.storage import numbers
from domzero.host.storage.files.place import Step
from domzero.host.storage.lvm.mapping import Access
from domzero.host.storage.lvm.tool import LvmTool
from domzero.host.storage.protocol import StorageError

LOCKS = Path("/run/lock")


@dataclass(slots=True)
class AttachedGroup:
    """What is known of a volume group while it is attached. `extent_size` is bytes."""

    name: str
    tool: LvmTool
    access: Access
    extent_size: int
    lock: int
    """A descriptor of the lock file."""
    step: Step
    """Told of every change on the medium."""
    host: str = ""
    """This host's mark, where others share the medium."""
    order: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever changes the group's metadata or looks for leftovers: LVM's own lock is not fair."""
    _held: dict[str, asyncio.Lock] = field(default_factory=dict)
    _wanted: Counter[str] = field(default_factory=Counter)

    @property
    def busy(self) -> frozenset[str]:
        """The disks (uuids) that somebody works on."""
        return frozenset(uuid for uuid, lock in self._held.items() if lock.locked())

    @asynccontextmanager
    async def hold(self, uuid: str) -> AsyncIterator[None]:
        """Have a disk alone, from a moment on at which nobody looks for leftovers."""
        lock = self._held.setdefault(uuid, asyncio.Lock())
        self._wanted[uuid] += 1
        try:
            async with lock:
                async with self.order:
                    pass
                yield
        finally:
            self._wanted[uuid] -= 1
            if not self._wanted[uuid]:
                del self._wanted[uuid], self._held[uuid]

    async def change(self, what: str, verb: str, *arguments: str) -> None:
        """Run a command that changes the metadata, one at a time. `what` is what has happened then."""
        async with self.order:
            await self.tool.call(verb, *arguments)
        self.step(what)

    def path(self, volume: str) -> str:
        """A volume as LVM's commands name it."""
        return f"{self.name}/{volume}"

    def extents(self, size: int) -> int:
        """How many extents hold so many bytes. Raises `StorageError` 79 for none, or more than LVM can count."""
        count = -(-size // self.extent_size)
        if not 0 < count < 1 << 32:
            raise StorageError(numbers.DISK_SIZE, f"a disk cannot have {size} bytes")
        return count


def let_go(lock: int) -> None:
    """Give a lock back, also while a child that is being started still has its descriptor."""
    fcntl.flock(lock, fcntl.LOCK_UN)
    os.close(lock)


def take_lock(path: Path, *, shared: bool = False) -> int:
    """Have a lock file for this process, alone or with others, until `let_go`. Blocking.

    Raises `StorageError` 16 when another process of this host has it.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BaseException:
            os.close(descriptor)
            raise
    except BlockingIOError:
        raise StorageError(numbers.REPOSITORY_IN_USE, f"{path} is held: another process uses this") from None
    except OSError as error:
        raise numbers.from_os(error) from error
    return descriptor
