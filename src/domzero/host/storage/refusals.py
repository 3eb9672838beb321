"""What a driver answers for whatever its medium cannot do."""

# ruff: noqa: ARG002 - a refusal looks at no argument

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from domzero.host.hypervisor.spec import DiskSource
from domzero.host.storage import numbers
from domzero.host.storage.protocol import (
    NOTHING,
    DiskInfo,
    LiveMerge,
    Merge,
    ProbedRepository,
    Progress,
    Repository,
    StorageError,
)


class Refusals:
    """The optional verbs of `StorageDriver`, refused with `StorageError` 38; a driver overrides those that it has.

    There is nothing to merge. `refusal` is what the error says.
    """

    refusal = "repositories of this type cannot do that"

    async def probe(self, device_config: Mapping[str, str], sm_config: Mapping[str, str]) -> list[ProbedRepository]:
        raise self._refused()

    async def create_disk(
        self, repository: Repository, uuid: str, virtual_size: int, sm_config: Mapping[str, str] = NOTHING
    ) -> DiskInfo:
        raise self._refused()

    async def create_image(self, repository: Repository, uuid: str) -> DiskInfo:
        raise self._refused()

    async def destroy_disk(self, repository: Repository, location: str) -> None:
        raise self._refused()

    async def clone_disk(self, repository: Repository, location: str, uuid: str) -> DiskInfo:
        raise self._refused()

    async def snapshot_disk(
        self, repository: Repository, location: str, uuid: str, switch: Callable[[DiskSource], Awaitable[None]] | None
    ) -> DiskInfo:
        raise self._refused()

    async def copy_disk(
        self, source: DiskSource, repository: Repository, uuid: str, virtual_size: int, progress: Progress
    ) -> DiskInfo:
        raise self._refused()

    async def resize_disk(
        self,
        repository: Repository,
        location: str,
        virtual_size: int,
        live: Callable[[int], Awaitable[None]] | None = None,
    ) -> DiskInfo:
        raise self._refused()

    async def merges(self, repository: Repository) -> list[Merge]:
        """No disks share layers."""
        return []

    async def merge(self, repository: Repository, merge: Merge, progress: Progress, live: LiveMerge | None) -> None:
        """No merge holds, so each is left alone."""

    def _refused(self) -> StorageError:
        return StorageError(numbers.NOT_IMPLEMENTED, self.refusal)
