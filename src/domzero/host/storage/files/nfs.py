"""Repositories of type `nfs`: a directory on a server, named by the repository's uuid, that hosts share.

A server that does not answer must hang nobody: what is mounted fails after a while (`nfs_settings.OPTIONS`), and before
that nothing is waited for beyond the bounds of `Workers`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from uuid import uuid4

from domzero.host.process import ProcessError, run
from domzero.host.storage import numbers
from domzero.host.storage.files.directory import DirectoryStorage
from domzero.host.storage.files.file import CAPABILITIES
from domzero.host.storage.files.marker import MARKER
from domzero.host.storage.files.nfs_settings import (
    CONFIGURATION,
    Export,
    export_of,
    exports_in,
    list_arguments,
    meaning,
    server_of,
)
from domzero.host.storage.files.place import Ownership, Step
from domzero.host.storage.menus import export_menu
from domzero.host.storage.mounts import forbid_links, mount, point_of, release, unmount
from domzero.host.storage.protocol import DriverInfo, ProbedRepository, Repository, StorageError
from domzero.host.storage.uuids import UUID_PATTERN
from domzero.host.storage.worker import PATIENCE, Workers

INFO = DriverInfo(
    type="nfs",
    name="NFS export",
    description="Disks are files (qcow2, VHD or raw) on an NFS server; clones and snapshots share blocks",
    vendor="domzero",
    copyright="domzero contributors, Apache License 2.0",
    version="1.0",
    required_api_version="1.0",
    capabilities=tuple(sorted(("SR_PROBE", *CAPABILITIES))),
    configuration=CONFIGURATION,
)
RESOLVE_PATIENCE = 10.0
LIST_PATIENCE = 20.0
PROBE_PATIENCE = 30.0


class NfsMedium:
    """Implements `Medium`. Exports are mounted in directories below `mounts`, named by the repository's uuid."""

    patience = PATIENCE
    shared = True
    mode = 0o666
    """The server asks who lengthens a file, whoever opened it: the machine's own user, whom it does not know."""
    whole = False

    def __init__(self, mounts: Path) -> None:
        self._mounts = mounts

    def info(self) -> DriverInfo:
        return INFO

    async def probe(
        self,
        device_config: Mapping[str, str],
        sm_config: Mapping[str, str],  # noqa: ARG002 - says nothing of the server
    ) -> list[ProbedRepository]:
        export = await _export(device_config)
        point = self._mounts / f"probe-{uuid4()}"
        workers = Workers(export.server, PROBE_PATIENCE)
        await _mount(export, point, workers)
        try:
            return await workers.run(_repositories, point)
        finally:
            await unmount(point)

    async def create(self, repository: Repository) -> None:
        await _export(repository.device_config)

    async def attach(self, repository: Repository) -> Path:
        point = point_of(self._mounts, repository)
        export = await _export(repository.device_config)
        workers = Workers(export.server, self.patience)
        await _mount(export, point, workers)
        await forbid_links(point, workers, export.options)
        return point / repository.uuid

    async def detach(self, repository: Repository) -> None:
        """A server that is gone keeps nothing busy: what is mounted is taken off its directory whoever uses it."""
        await release(point_of(self._mounts, repository), numbers.REPOSITORY_IN_USE)

    async def erase(self, repository: Repository) -> None:
        """The driver has removed the directory; the export is not ours."""


class NfsStorage(DirectoryStorage):
    """Implements `StorageDriver`; see `DirectoryStorage`."""

    def __init__(
        self,
        mounts: Path,
        *,
        owner: Ownership | None = None,
        step: Step = lambda _: None,
        new_uuid: Callable[[], str] = lambda: str(uuid4()),
    ) -> None:
        super().__init__(NfsMedium(mounts), owner=owner, step=step, new_uuid=new_uuid)


async def _export(device_config: Mapping[str, str]) -> Export:
    """Raises `StorageError` 140 for a server whose name nobody knows, and 101 with a menu where no path is given."""
    export = export_of(device_config)
    server = server_of(device_config)
    await _refuse_unknown(server)
    if export is None:
        text = "device_config has no serverpath"
        raise StorageError(numbers.SERVER_PATH_MISSING, text, await _menu(server))
    return export


async def _refuse_unknown(server: str) -> None:
    try:
        await Workers(server, RESOLVE_PATIENCE).run(socket.getaddrinfo, server, None)
    except (OSError, UnicodeError) as error:
        raise StorageError(numbers.NAME_UNKNOWN, f"{server}: {error}") from error
    except StorageError as error:
        raise StorageError(numbers.NAME_UNKNOWN, f"nobody says who {server} is") from error


async def _menu(server: str) -> str:
    """A server of NFS 4 alone keeps no list: an empty menu."""
    try:
        said = await run(list_arguments(server), timeout=LIST_PATIENCE, check=False)
    except ProcessError as error:
        raise StorageError(numbers.NFS_MOUNT, f"{server} does not answer: {error}") from error
    text = said.stderr.decode(errors="replace").strip()
    if said.returncode != 0 and "not registered" not in text:
        raise StorageError(numbers.NFS_MOUNT, f"{server} does not answer: {text}")
    return export_menu(server, exports_in(said.stdout.decode(errors="replace")))


async def _mount(export: Export, point: Path, workers: Workers) -> None:
    """Raises `StorageError` 103, 72 or 73."""
    try:
        await mount(export.request(), point, workers, numbers.NFS_MOUNT)
    except StorageError as error:
        late = error.number == numbers.INPUT_OUTPUT
        number = numbers.NFS_MOUNT if late else error.number
        raise StorageError(meaning(error.text) if number == numbers.NFS_MOUNT else number, error.text) from error


def _repositories(point: Path) -> list[ProbedRepository]:
    try:
        medium = os.statvfs(point)
        names = sorted(name for name in os.listdir(point) if UUID_PATTERN.fullmatch(name))
        found = [name for name in names if os.path.lexists(point / name / MARKER)]
    except OSError as error:
        raise numbers.from_os(error) from error
    total, free = medium.f_blocks * medium.f_frsize, medium.f_bavail * medium.f_frsize
    return [ProbedRepository(name, total, free) for name in found]
