"""Fetching an installer's kernel and RAM disk from wherever the repository is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from domzero.finish import in_thread
from domzero.host.contents.protocol import ContentError, DiskContents
from domzero.host.download.protocol import Download, DownloadError, FileMissingError
from domzero.host.hypervisor.spec import DiskFormat, DiskSource, RemoteImage
from domzero.toolstack.vm.install.checksums import has_digest, published
from domzero.toolstack.vm.install.families import Tree
from domzero.toolstack.vm.install.padding import without_padding
from domzero.toolstack.vm.install.source import NFS, Repository

LARGEST_KERNEL = 64 << 20
LARGEST_RAMDISK = 512 << 20
LARGEST_LISTING = 4 << 20
PATIENCE = 600.0
"""Seconds that everything together may take."""
BLOCK = 1 << 20

Share = Callable[[float], None]
"""Told how much of the work is done, 0 to 1."""


class InstallerMissingError(Exception):
    """The installer could not be had; the text says why, for a person."""


class Fetcher:
    """Fetches from one repository, in `PATIENCE` seconds altogether."""

    def __init__(self, repository: Repository, download: Download, contents: DiskContents, tell: Share) -> None:
        self._repository = repository
        self._download = download
        self._contents = contents
        self._tell = tell
        self._deadline = time.monotonic() + PATIENCE
        self._told = 0.0

    async def fetch(self, trees: tuple[Tree, ...], kernel: Path, ramdisk: Path) -> None:
        """Write both files, from the first layout that the repository has, and compare them with what it says of them.

        Raises `InstallerMissingError`; what is left then is for the caller to remove.
        """
        tree = await self._first(trees, kernel)
        listing = await self._listing(tree, kernel.with_name("listing"))
        await self._check(tree, listing, tree.kernel, kernel)
        try:
            await self._file(tree.ramdisk, ramdisk, LARGEST_RAMDISK, 0.2, 0.95)
        except (DownloadError, OSError) as error:
            raise self._failure(tree.ramdisk, error) from error
        await self._check(tree, listing, tree.ramdisk, ramdisk)
        self._tell(1.0)

    async def _first(self, trees: tuple[Tree, ...], kernel: Path) -> Tree:
        first: InstallerMissingError | None = None
        for tree in trees:
            try:
                await self._file(tree.kernel, kernel, LARGEST_KERNEL, 0.0, 0.2)
            except FileMissingError as error:
                first = first or self._failure(tree.kernel, error)
            except (DownloadError, OSError) as error:
                raise self._failure(tree.kernel, error) from error
            else:
                return tree
        raise first or InstallerMissingError("nothing is known of where the installer could be")

    async def _listing(self, tree: Tree, path: Path) -> str:
        """The text of the tree's checksums; empty where the repository has none."""
        if not tree.listing:
            return ""
        try:
            await self._file(tree.listing, path, LARGEST_LISTING, 0.2, 0.2)
            return (await in_thread(path.read_bytes)).decode(errors="replace").rstrip("\0")
        except FileMissingError:
            return ""
        except (DownloadError, OSError) as error:
            raise self._failure(tree.listing, error) from error
        finally:
            await in_thread(path.unlink, missing_ok=True)

    async def _check(self, tree: Tree, listing: str, name: str, file: Path) -> None:
        wanted = await in_thread(published, listing, name, tree.listed_below)
        if wanted is None:
            return
        if self._repository.kind == NFS:
            await in_thread(without_padding, file, wanted)
        if not await in_thread(has_digest, file, wanted):
            place = f"{self._repository.public}/{name}"
            raise InstallerMissingError(f"{place} is not the file whose {wanted[0]} checksum {tree.listing} gives")

    async def _file(self, name: str, path: Path, largest: int, begin: float, end: float) -> None:
        """Fetch one file, which is the part of the work from `begin` to `end`."""
        left = self._deadline - time.monotonic()
        too_slow = DownloadError(f"the repository is too slow: more than {PATIENCE:.0f} seconds have passed")
        if left <= 0:
            raise too_slow
        if self._repository.kind == NFS:
            try:
                async with asyncio.timeout(left):
                    await self._from_nfs(name, path, largest)
            except TimeoutError:
                raise too_slow from None
        else:

            def progress(received: int, expected: int) -> None:
                if expected:
                    self._tell(begin + (end - begin) * min(1.0, received / expected))

            address = self._repository.file(name)
            if not await self._download(address, path, largest=largest, patience=left, progress=progress):
                raise DownloadError("the file is empty")
        self._tell(end)

    async def _from_nfs(self, name: str, path: Path, largest: int) -> None:
        """By QEMU's own NFS client, so that nothing is mounted. It counts in blocks: zeros may be at the end."""
        try:
            async with self._contents.reading(nfs_file(self._repository, name)) as reader:
                if reader.size > largest:
                    raise DownloadError(f"the file is larger than {largest} bytes")
                with await in_thread(path.open, "wb") as file:
                    for offset in range(0, reader.size, BLOCK):
                        await in_thread(file.write, await reader.read(offset, min(BLOCK, reader.size - offset)))
        except ContentError as error:
            # libnfs has one kind of failure for a missing file and for a missing server.
            raise FileMissingError(str(error)[:200]) from error
        await in_thread(path.chmod, 0o644)

    def _failure(self, name: str, error: Exception) -> InstallerMissingError:
        text = error.strerror if isinstance(error, OSError) else str(error)
        return InstallerMissingError(
            f"the installer could not be fetched from {self._repository.public}/{name}: {text}"
        )


def nfs_file(repository: Repository, name: str) -> DiskSource:
    """A file of an NFS repository as QEMU reaches it (QMP reference, BlockdevOptionsNfs)."""
    path = str(PurePosixPath(repository.path or "/") / name)
    options = (("server.type", "inet"), ("server.host", repository.host), ("path", path))
    return DiskSource(RemoteImage("nfs", options), DiskFormat.RAW)
