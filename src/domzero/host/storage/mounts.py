"""File systems of servers and disks, mounted for repositories; a server that does not answer costs bounded time.

What is mounted is read from the kernel's own list, which never asks a server. All work goes through a `Workers` of the
caller's, one for each medium.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from domzero.finish import in_thread
from domzero.host.process import Completed, ProcessError, run
from domzero.host.storage import numbers
from domzero.host.storage.numbers import from_os
from domzero.host.storage.protocol import Repository, StorageError
from domzero.host.storage.uuids import UUID_PATTERN
from domzero.host.storage.worker import Workers

PATIENCE = 30.0
"""Seconds that mounting may take."""
UNMOUNT_PATIENCE = 10.0
ANSWER_PATIENCE = 5.0
"""Seconds that a server has to show that it is still there, before its share is let go of."""
MOUNT_LIST = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(r"\\([0-7]{3})")
_GRACE = 5.0
_POINT_OPTIONS = frozenset({"ro", "nosuid", "nodev", "noexec"})
_LAYERS = 4
"""Mounts can lie on one another."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Mounted:
    """One line of the kernel's list (proc(5), `/proc/pid/mountinfo`)."""

    source: str
    type: str
    point: Path


@dataclass(frozen=True, slots=True)
class MountRequest:
    """What is to be mounted. `environment` and `pass_fds` reach the program that mounts, as secrets do."""

    type: str
    source: str
    options: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    pass_fds: tuple[int, ...] = ()


def mounts_in(text: str) -> dict[Path, Mounted]:
    """What a mount list says, by mount point; of those on the same point the topmost."""
    found = {}
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        place, what = before.split(" "), after.split(" ")
        if len(place) >= 5 and len(what) >= 2:
            point = Path(_unescaped(place[4]))
            found[point] = Mounted(_unescaped(what[1]), what[0], point)
    return found


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), text)


def mounted_at(point: Path, mount_list: Path = MOUNT_LIST) -> Mounted | None:
    """What is mounted at a point now."""
    return mounts_in(mount_list.read_text(errors="surrogateescape")).get(point)


def point_of(mounts: Path, repository: Repository) -> Path:
    """Where a repository is mounted. Raises `StorageError` 1 for one whose uuid is none, and would lead elsewhere."""
    if not UUID_PATTERN.fullmatch(repository.uuid):
        raise StorageError(numbers.INVALID_ARGUMENT, f"{repository.uuid!r} is no uuid")
    return mounts / repository.uuid


def mount_arguments(request: MountRequest, point: Path) -> list[str | Path]:
    """The command that mounts."""
    return ["mount", "-t", request.type, "-o", ",".join(request.options), "--", request.source, point]


async def mount(request: MountRequest, point: Path, workers: Workers, failure: int = numbers.MOUNT) -> None:
    """Mount at a directory, which is made; doing it twice is no error. What else is mounted there goes.

    Raises `StorageError` with `failure` when it cannot be mounted, and 200 when nothing answers.
    """
    here = mounted_at(point)
    if here is not None and here.source == request.source and _same_type(here.type, request.type):
        return
    if here is not None:
        await unmount(point, failure)
    await in_thread(_make, point)
    argv = mount_arguments(request, point)
    said = await _tool(argv, workers, PATIENCE, failure, request.environment, request.pass_fds)
    if said.returncode != 0:
        await in_thread(_discard, point)
        raise StorageError(failure, f"{request.source} cannot be mounted: {_text(said)}")


async def forbid_links(point: Path, workers: Workers, options: Sequence[str]) -> None:
    """See to it that nobody is led out of a mounted file system by a link, where the kernel can (Linux 5.10).

    `options` are those it was mounted with, of which those that belong to the mount point stay as they are.
    """
    kept = [option for option in options if option in _POINT_OPTIONS]
    argv: list[str | Path] = ["mount", "-o", ",".join(["remount", "bind", *kept, "nosymfollow"]), "--", point]
    said = await _tool(argv, workers, PATIENCE, numbers.MOUNT)
    if said.returncode != 0:
        log.warning("links in %s are followed by whoever does not look: %s", point, _text(said))


async def unmount(point: Path, failure: int = numbers.UNMOUNT) -> None:
    """Undo `mount`; doing it twice is no error. A file system in use stays: raises `StorageError` with `failure`.

    One whose server does not answer is taken off its directory at once and goes when nobody has it open any more.
    """
    for _ in range(_LAYERS):
        if mounted_at(point) is None:
            break
        if await _unmounted(["umount", "--no-canonicalize", point], point, failure):
            continue
        if not await _unmounted(["umount", "-f", "-l", "--no-canonicalize", point], point, failure):
            raise StorageError(failure, f"{point} cannot be let go of")
    await in_thread(_discard, point)


async def release(point: Path, failure: int = numbers.UNMOUNT) -> None:
    """`unmount`, for the share of a server: one that does not answer keeps nothing busy, whoever has files open."""
    if mounted_at(point) is not None and not await _answers(point):
        await _unmounted(["umount", "-f", "-l", "--no-canonicalize", point], point, failure)
    await unmount(point, failure)


async def _answers(point: Path) -> bool:
    try:
        await Workers(str(point), ANSWER_PATIENCE).run(os.statvfs, point)
    except (StorageError, OSError) as error:
        log.warning("%s does not answer and is let go of: %s", point, error)
        return False
    return True


async def _unmounted(argv: Sequence[str | Path], point: Path, failure: int) -> bool:
    # Workers of its own: what hangs in the kernel must not keep a second, forceful attempt from being made.
    try:
        said = await _tool(argv, Workers(str(point)), UNMOUNT_PATIENCE, failure)
    except StorageError as error:
        log.warning("%s: %s", point, error.text)
        return False
    if said.returncode != 0 and "busy" in _text(said):
        raise StorageError(failure, f"{point} is in use: {_text(said)}")
    return said.returncode == 0


def _same_type(present: str, wanted: str) -> bool:
    return present == wanted or (present, wanted) == ("nfs4", "nfs")


def _make(point: Path) -> None:
    try:
        point.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise from_os(error, numbers.DIRECTORY_NOT_CREATED) from error


def _discard(point: Path) -> None:
    if mounted_at(point) is not None:
        return
    try:
        point.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        raise from_os(error) from error


async def _tool(
    argv: Sequence[str | Path],
    workers: Workers,
    patience: float,
    failure: int,
    environment: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> Completed:
    """A program's answer, within `patience` even if it hangs in the kernel."""
    try:
        return await workers.attend(
            lambda: run(argv, timeout=patience, check=False, environment=environment, pass_fds=pass_fds),
            patience + _GRACE,
        )
    except ProcessError as error:
        raise StorageError(failure, str(error)) from error


def _text(said: Completed) -> str:
    return (said.stderr or said.stdout).decode(errors="replace").strip()[-500:]
