"""The directory of one attached repository: who owns it, and careful changes in it.

Functions here block, for `Place.run`; methods that are coroutines do not.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar

import orjson

from domzero.durable import sync
from domzero.host.storage import numbers
from domzero.host.storage.files import layers
from domzero.host.storage.files.layers import Survey
from domzero.host.storage.files.marker import MARKER, lock_marker, read_marker
from domzero.host.storage.files.memory import IMAGE_NAME
from domzero.host.storage.files.plain import PLAIN_NAME
from domzero.host.storage.numbers import from_os
from domzero.host.storage.protocol import Repository, StorageError
from domzero.host.storage.worker import LONG, Workers, in_own_thread

P = ParamSpec("P")
T = TypeVar("T")

DRAFT = f"{MARKER}.tmp"
HARMLESS = frozenset({"lost+found", DRAFT})
"""What a fresh file system holds, and what `prepare` leaves when it is killed."""

Step = Callable[[str], None]
"""Told the name of each change just made; tests end the process there."""


@dataclass(frozen=True, slots=True)
class Ownership:
    """Who may use the disks' files: the user that machines run as."""

    uid: int
    gid: int


@dataclass(slots=True, eq=False)
class Run:
    """A merge going on, of layers that `disks` read through."""

    disks: frozenset[str]
    yields: bool
    """Whether a look for a disk's files is reason enough to end it."""
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    done: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Place:
    """An attached repository. `busy` are files that belong to operations going on."""

    directory: Path
    descriptor: int
    """The marker, open, and locked if `owned`; -1 once the repository has been erased."""
    owned: bool
    """Whether only this process changes the repository; on a medium that hosts share another may be at it."""
    workers: Workers
    owner: Ownership | None = None
    mode: int = 0o600
    """Permissions of the disks' files."""
    step: Step = lambda _: None
    runs: list[Run] = field(default_factory=list)
    doubtful: tuple[tuple[str, str], ...] = ()
    """Layers that were taking over another one, whose merge is over but perhaps not complete, as last seen."""
    busy: set[str] = field(default_factory=set)
    gate: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while leftovers are looked for, and to become busy."""
    merging: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while two layers become one."""
    locks: dict[str, tuple[asyncio.Lock, int]] = field(default_factory=dict)
    """By disk, with the number of those who hold or want it."""
    sizes: dict[str, int] = field(default_factory=dict)
    """The virtual size of each disk, so that their sum needs no look at every file; set anew by every survey."""
    changes: int = 0
    """How often a size was noted: a survey that began before the last time is not the newest word."""

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Blocking work on the medium; see `Workers.run`."""
        return await self.workers.run(function, *args, **kwargs)

    async def seal(self, path: Path, *, full: bool = False) -> None:
        """Call `seal`. A file that is `full` has a while to get onto the medium."""
        patience = self.workers.patience * (LONG if full else 1)
        await self.workers.attend(lambda: in_own_thread(seal, path, self.owner, self.mode), patience)

    async def claim(self) -> None:
        """Become the one that changes the repository. Raises `StorageError` 16 while another host is."""
        if not self.owned:
            await self.run(lock_marker, self.descriptor, self.directory)
            self.owned = True

    async def interrupt(self, disk: str, *, reading: bool = False) -> None:
        """End the merges that a disk's layers take part in; those that yield only, when it is for `reading`."""
        for run in [run for run in self.runs if disk in run.disks and (run.yields or not reading)]:
            run.stop.set()
            await run.done.wait()

    def note_size(self, uuid: str, virtual_size: int) -> None:
        """The disk is there, of that size; 0 when it is gone."""
        self.changes += 1
        if virtual_size:
            self.sizes[uuid] = virtual_size
        else:
            self.sizes.pop(uuid, None)

    @asynccontextmanager
    async def hold(self, *uuids: str) -> AsyncIterator[None]:
        """Have these disks alone."""
        held: list[str] = []
        try:
            for uuid in sorted(set(uuids)):
                lock, users = self.locks.get(uuid, (asyncio.Lock(), 0))
                self.locks[uuid] = (lock, users + 1)
                try:
                    await lock.acquire()
                except BaseException:
                    self._leave(uuid)
                    raise
                held.append(uuid)
            yield
        finally:
            for uuid in held:
                self.locks[uuid][0].release()
                self._leave(uuid)

    @asynccontextmanager
    async def making(self, names: Iterable[str]) -> AsyncIterator[None]:
        """Files that are being made must not be taken for leftovers."""
        made = set(names)
        async with self.gate:
            self.busy |= made
        try:
            yield
        finally:
            self.busy -= made

    def _leave(self, uuid: str) -> None:
        lock, users = self.locks[uuid]
        if users == 1:
            del self.locks[uuid]
        else:
            self.locks[uuid] = (lock, users - 1)


def location_of(repository: Repository) -> Path:
    """The directory that device_config names. Raises `StorageError` 94 for none, or one written in a tricky way."""
    location = repository.device_config.get("location", "")
    if not location:
        raise StorageError(numbers.LOCATION_MISSING, "device_config has no location")
    if not os.path.isabs(location) or "\0" in location or os.path.normpath(location) != location:
        raise StorageError(numbers.LOCATION_MISSING, f"location must be a plain absolute path, not {location!r}")
    if location == "/" or location.startswith("//"):
        raise StorageError(numbers.LOCATION_MISSING, "the root directory cannot be a repository")
    return Path(location)


def prepare(directory: Path, uuid: str, owner: Ownership | None) -> None:
    """Make an empty repository in a directory that is empty, or missing while its parent is there."""
    try:
        made = _make_directory(directory)
        names = set(os.listdir(directory)) - HARMLESS
        if MARKER in names:
            raise StorageError(numbers.REPOSITORY_EXISTS, f"{directory} holds a repository already")
        if names:
            raise StorageError(numbers.REPOSITORY_IN_USE, f"{directory} is not empty")
        if owner:
            os.chown(directory, -1, owner.gid)
            directory.chmod(0o710)
        written = directory / DRAFT
        written.unlink(missing_ok=True)
        with open(written, "xb") as file:
            file.write(orjson.dumps({"repository": uuid, "made_directory": made}))
            file.flush()
            os.fsync(file.fileno())
        written.replace(directory / MARKER)
        sync(directory)
    except OSError as error:
        raise from_os(error) from error


def _make_directory(directory: Path) -> bool:
    try:
        directory.mkdir(mode=0o700)
    except FileExistsError:
        if not directory.is_dir():
            raise StorageError(numbers.REPOSITORY_UNAVAILABLE, f"{directory} is no directory") from None
        return False
    except FileNotFoundError as error:
        raise from_os(error, numbers.DIRECTORY_NOT_CREATED) from error
    return True


def open_place(directory: Path, uuid: str, workers: Workers, *, shared: bool = False) -> Place:
    """Take a repository for this process. Raises `StorageError` when it is missing, another one, or taken.

    A `shared` medium that another host has taken is opened all the same, not `owned`.
    """
    try:
        descriptor = os.open(directory / MARKER, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise from_os(error) from error
    owned = True
    try:
        if read_marker(descriptor, directory)["repository"] != uuid:
            raise StorageError(numbers.REPOSITORY_UNAVAILABLE, f"{directory} holds another repository")
        try:
            lock_marker(descriptor, directory)
        except StorageError as error:
            if not shared or error.number != numbers.REPOSITORY_IN_USE:
                raise
            owned = False
    except BaseException:
        os.close(descriptor)
        raise
    return Place(directory, descriptor, owned, workers)


def erase(place: Place) -> None:
    """Remove every file that is ours, and the directory where `prepare` made it and nothing else is in it.

    The marker goes last, closed: NFS keeps a file that is open under another name.
    """
    directory = place.directory
    try:
        marker = read_marker(place.descriptor, directory)
        for name in os.listdir(directory):
            patterns = (*layers.NAMES, PLAIN_NAME, IMAGE_NAME)
            if any(pattern.fullmatch(name) for pattern in patterns):
                (directory / name).unlink(missing_ok=True)
        descriptor, place.descriptor = place.descriptor, -1
        os.close(descriptor)
        (directory / MARKER).unlink(missing_ok=True)
        if marker.get("made_directory") is True and not os.listdir(directory):
            directory.rmdir()
    except OSError as error:
        raise from_os(error) from error


def tidy(place: Place) -> Survey:
    """Finish or undo what killed operations left, and return what is there after that. The gate must be held.

    A repository that another host may be changing is only looked at.
    """
    try:
        found = layers.survey(place.directory)
        for _ in range(3 if place.owned else 0):
            left = layers.leftovers(found, place.busy)
            place.doubtful = left.restore
            if not left.finish and not left.remove:
                break
            for name, final in left.finish:
                os.replace(place.directory / name, place.directory / final)
                place.step("finished")
            for name in left.remove:
                (place.directory / name).unlink(missing_ok=True)
                place.step("removed")
            sync(place.directory)
            found = layers.survey(place.directory)
    except OSError as error:
        raise from_os(error) from error
    return found


def seal(path: Path, owner: Ownership | None, mode: int = 0o600) -> None:
    """Give a new file to the user that machines run as, with these permissions, and put it on the medium."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchmod(descriptor, mode)
            if owner:
                os.fchown(descriptor, owner.uid, owner.gid)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise from_os(error) from error


def sync_file(path: Path) -> None:
    """Put what was written into a file on the medium, whoever wrote it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise from_os(error, numbers.DISK_MISSING) from error


def need_room(directory: Path, size: int) -> None:
    """Raises `StorageError` 44 unless that many bytes are free."""
    try:
        medium = os.statvfs(directory)
    except OSError as error:
        raise from_os(error) from error
    free = medium.f_bavail * medium.f_frsize
    if size > free:
        raise StorageError(numbers.NO_SPACE, f"{size} bytes are needed and {free} are free")


def note(directory: Path, name: str, text: str) -> None:
    """Write a small file, durably."""
    try:
        descriptor = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, text.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync(directory)
    except OSError as error:
        raise from_os(error) from error


def make_blank(path: Path, mode: int = 0o600) -> None:
    """An empty file with these permissions; one that is there already is an error."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        os.chmod(path, mode)
    except OSError as error:
        raise from_os(error) from error


def link(directory: Path, present: str, further: str) -> None:
    """Give a file a second name, durably."""
    try:
        os.link(directory / present, directory / further, follow_symlinks=False)
        sync(directory)
    except OSError as error:
        raise from_os(error, numbers.DISK_MISSING) from error


def rename(directory: Path, present: str, final: str) -> None:
    """Put a file in its place, durably, replacing what is there."""
    try:
        os.replace(directory / present, directory / final)
        sync(directory)
    except OSError as error:
        raise from_os(error, numbers.DISK_MISSING) from error


def remove(directory: Path, *names: str) -> bool:
    """Remove files, durably; says whether any was there."""
    found = False
    try:
        for name in names:
            try:
                os.unlink(directory / name)
            except FileNotFoundError:
                continue
            found = True
        if found:
            sync(directory)
    except OSError as error:
        raise from_os(error) from error
    return found
