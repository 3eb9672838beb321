"""Repositories that are a directory, on whatever medium: clones and snapshots of qcow2 files share layers.

A copy-on-write copy of disk L as N is made in steps, each of which can be the last: (1) `next-L` and `new-N`, blank
layers above the not yet existing `base-B`; (2) the name `base-B` for L's file, a second name beside the first; (3) a
machine that runs moves to `next-L`; (4) `next-L` takes the name of L; (5) `new-N` takes the name of N. Up to step 2
removing the new names undoes all; after it, step 4 is done by the next `attach` or `scan`, whose rules are in
`layers.leftovers`. At no moment is L's content without the name under which a machine looks for it.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from uuid import uuid4

from domzero.finish import finish
from domzero.host.hypervisor.spec import DiskSource
from domzero.host.storage import numbers
from domzero.host.storage.files import coalesce, layers
from domzero.host.storage.files import place as places
from domzero.host.storage.files.formats import QCOW2, chosen
from domzero.host.storage.files.growing import duplicate, grow
from domzero.host.storage.files.layers import base_name
from domzero.host.storage.files.making import (
    Switch,
    branch,
    chain_of,
    describe,
    layer_info,
    make_image,
    making_disk,
    may_share,
    plain_disk,
    plain_info,
    present_names,
    publish,
    refuse_taken,
    source_of,
)
from domzero.host.storage.files.marker import close_marker
from domzero.host.storage.files.medium import Medium
from domzero.host.storage.files.memory import find_image, image_name, list_images
from domzero.host.storage.files.merge import merge_layers
from domzero.host.storage.files.place import Ownership, Place, Step
from domzero.host.storage.images import convert_image
from domzero.host.storage.protocol import (
    NOTHING,
    DiskInfo,
    DriverInfo,
    LiveMerge,
    Merge,
    ProbedRepository,
    Progress,
    Repository,
    RepositorySize,
    StorageError,
)
from domzero.host.storage.sources import check_source
from domzero.host.storage.uuids import UUID_PATTERN
from domzero.host.storage.worker import Workers, in_own_thread

log = logging.getLogger(__name__)

CLOSING = 5.0
"""Seconds that letting go of a repository waits for its medium."""
METADATA = 1 << 20
"""Bytes that a growing qcow2 file needs at once, besides a byte for each `METADATA_SHARE` of the disk."""
METADATA_SHARE = 1 << 26


class DirectoryStorage:
    """Implements `StorageDriver`.

    A disk's location is its uuid. `owner` is the user that machines run as: disks' files (mode 0600) are given to it.
    The directory of an attached repository is locked against other processes. `step` is told of every change on the
    medium.
    """

    def __init__(
        self,
        medium: Medium,
        *,
        owner: Ownership | None = None,
        step: Step = lambda _: None,
        new_uuid: Callable[[], str] = lambda: str(uuid4()),
    ) -> None:
        self._medium = medium
        self._owner = owner
        self._step = step
        self._new_uuid = new_uuid
        self._places: dict[str, Place] = {}
        self._opening: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def info(self) -> DriverInfo:
        return self._medium.info()

    # Repositories

    async def probe(self, device_config: Mapping[str, str], sm_config: Mapping[str, str]) -> list[ProbedRepository]:
        return await self._medium.probe(device_config, sm_config)

    async def create(self, repository: Repository, size: int) -> None:  # noqa: ARG002 - the medium has its size
        async with self._opening[repository.uuid]:
            await self._medium.create(repository)
            try:
                directory = await self._medium.attach(repository)
                await self._workers(repository).run(places.prepare, directory, repository.uuid, self._owner)
                await self._medium.detach(repository)
            except BaseException:
                await finish(self._undo_create(repository))
                raise

    async def attach(self, repository: Repository) -> None:
        opened = await self._open(repository)
        try:
            await self._tidy(self._place(repository))
        except BaseException:
            if opened:
                await self.detach(repository)
            raise

    async def detach(self, repository: Repository) -> None:
        async with self._opening[repository.uuid]:
            place = self._places.pop(repository.uuid, None)
            if place is not None:
                await self._close(place)
            await self._medium.detach(repository)

    async def destroy(self, repository: Repository) -> None:
        if not self._medium.whole:
            await self._open(repository)
            place = self._place(repository)
            await place.claim()
            try:
                await place.run(places.erase, place)
            except BaseException:
                await finish(self.detach(repository))
                raise
        await self.detach(repository)
        await self._medium.erase(repository)

    async def scan(self, repository: Repository) -> list[DiskInfo]:
        place = self._place(repository)
        found = await self._tidy(place)
        images = await place.run(list_images, place.directory)
        shared = [layer_info(uuid, layer) for uuid, layer in found.disks().items()]
        return [*shared, *map(plain_info, found.plain.values()), *images]

    async def size(self, repository: Repository) -> RepositorySize:
        place = self._place(repository)
        try:
            medium = await place.run(os.statvfs, place.directory)
        except OSError as error:
            raise numbers.from_os(error) from error
        total = medium.f_blocks * medium.f_frsize
        return RepositorySize(
            physical_size=total,
            physical_utilisation=total - medium.f_bavail * medium.f_frsize,
            virtual_allocation=sum(place.sizes.values()),
        )

    # Disks

    async def create_disk(
        self, repository: Repository, uuid: str, virtual_size: int, sm_config: Mapping[str, str] = NOTHING
    ) -> DiskInfo:
        """The repository's own sm_config may have an `image-format` too, for disks that ask for none."""
        place, format = self._place(repository), chosen(sm_config, repository.sm_config)
        async with place.hold(uuid), making_disk(place, uuid, format) as path:
            await make_image(place, path, format.rounded(virtual_size), format)
            return await publish(place, uuid, format)

    async def create_image(self, repository: Repository, uuid: str) -> DiskInfo:
        place = self._place(repository)
        async with place.hold(uuid):
            await refuse_taken(place, uuid)
            await place.run(places.make_blank, place.directory / image_name(uuid), place.mode)
            self._step("image made")
            return DiskInfo(uuid, uuid, 0, 0)

    async def destroy_disk(self, repository: Repository, location: str) -> None:
        place = self._place(repository)
        if not UUID_PATTERN.fullmatch(location):
            return
        await place.claim()
        await place.interrupt(location)
        async with place.hold(location):
            shares = await place.run(may_share, place.directory, location)
            names = await place.run(present_names, place.directory, location)
            await place.run(places.remove, place.directory, *names)
            place.note_size(location, 0)
            self._step("disk removed")
        if shares:
            await self._tidy(place)

    async def clone_disk(self, repository: Repository, location: str, uuid: str) -> DiskInfo:
        return await self.snapshot_disk(repository, location, uuid, None)

    async def snapshot_disk(self, repository: Repository, location: str, uuid: str, switch: Switch | None) -> DiskInfo:
        """Disks of other formats than qcow2 are copied in full, which a machine that runs could not wait for."""
        place = self._place(repository)
        await place.interrupt(location)
        async with place.hold(location, uuid):
            plain = await plain_disk(place, location)
            if plain is None:
                return await self._share(place, location, uuid, switch)
            if switch is not None:
                text = f"disk {location} is a {plain.format.name} file, which cannot be snapshotted while it is in use"
                raise StorageError(numbers.SNAPSHOT, text)
            return await duplicate(place, plain, uuid)

    async def copy_disk(
        self, source: DiskSource, repository: Repository, uuid: str, virtual_size: int, progress: Progress
    ) -> DiskInfo:
        """The copy has the format that the repository's sm_config names, whatever the source has."""
        place, format = self._place(repository), chosen(repository.sm_config)
        await Workers(str(source.place)).run(check_source, source)
        async with place.hold(uuid), making_disk(place, uuid, format) as path:
            await make_image(place, path, format.rounded(virtual_size), format)
            await convert_image(source, path, format, progress)
            await place.seal(path, full=True)
            return await publish(place, uuid, format)

    async def resize_disk(
        self,
        repository: Repository,
        location: str,
        virtual_size: int,
        live: Callable[[int], Awaitable[None]] | None = None,
    ) -> DiskInfo:
        """A VHD file grows by being copied, hence not under a machine that runs (`StorageError` 110)."""
        place = self._place(repository)
        await place.claim()
        await place.interrupt(location)
        async with place.hold(location):
            plain = await plain_disk(place, location)
            present = plain.virtual_size if plain else (await chain_of(place, location))[0].header.virtual_size
            size = (plain.format if plain else QCOW2).rounded(virtual_size)
            if size < present:
                raise StorageError(numbers.DISK_SIZE, f"a disk of {present} bytes cannot shrink to {size}")
            if size > present:
                await place.run(places.need_room, place.directory, METADATA + size // METADATA_SHARE)
                await grow(place, location, plain, size, live)
            info = await describe(place, location)
            place.note_size(location, info.virtual_size)
            return info

    async def merges(self, repository: Repository) -> list[Merge]:
        place = self._place(repository)
        return coalesce.possible_merges(await self._tidy(place), place.busy) if place.owned else []

    async def merge(self, repository: Repository, merge: Merge, progress: Progress, live: LiveMerge | None) -> None:
        place = self._place(repository)
        await place.claim()
        try:
            await coalesce.merge_offline_or_live(place, merge, progress, live)
        finally:
            await finish(self._tidy(place))

    async def update_disk(self, repository: Repository, location: str) -> DiskInfo:
        place = self._place(repository)
        return await self._image(place, location) or await describe(place, location)

    async def source(self, repository: Repository, location: str) -> DiskSource:
        """As the contract says. After a snapshot of a running disk the machine has the file open that `switch` was
        given, which by then has been renamed to this path."""
        place = self._place(repository)
        await place.interrupt(location, reading=True)
        if place.doubtful:
            await self._tidy(place)
        return await source_of(place, location)

    # Inside

    def _workers(self, repository: Repository) -> Workers:
        return Workers(f"repository {repository.uuid}", self._medium.patience)

    async def _undo_create(self, repository: Repository) -> None:
        try:
            await self._medium.detach(repository)
            await self._medium.erase(repository)
        except StorageError as error:
            log.error("repository %s could not be made and is not all undone: %s", repository.uuid, error)

    async def _open(self, repository: Repository) -> bool:
        """Attach without tidying; says whether it was not attached before."""
        async with self._opening[repository.uuid]:
            if repository.uuid in self._places:
                return False
            workers = self._workers(repository)
            directory = await self._medium.attach(repository)
            try:
                opening = workers.run(
                    places.open_place, directory, repository.uuid, workers, shared=self._medium.shared
                )
                place = await opening
            except BaseException:
                await self._medium.detach(repository)
                raise
            place.owner, place.mode, place.step = self._owner, self._medium.mode, self._step
            self._places[repository.uuid] = place
            return True

    async def _close(self, place: Place) -> None:
        """Let go of the marker, also when the medium does not answer: then that is done when it is back."""
        if place.descriptor < 0:
            return
        closing = in_own_thread(close_marker, place.descriptor)
        await finish(_wait(closing, min(self._medium.patience, CLOSING)))
        if not closing.done():
            log.warning("%s is closed later: it does not answer", place.directory)
        elif error := closing.exception():
            log.warning("%s could not be closed: %s", place.directory, error)

    def _place(self, repository: Repository) -> Place:
        place = self._places.get(repository.uuid)
        if place is None:
            raise StorageError(numbers.REPOSITORY_UNAVAILABLE, f"repository {repository.uuid} is not attached")
        return place

    async def _image(self, place: Place, location: str) -> DiskInfo | None:
        if not UUID_PATTERN.fullmatch(location):
            return None
        return await place.run(find_image, place.directory, location)

    async def _tidy(self, place: Place) -> layers.Survey:
        async with place.gate:
            before = place.changes
            found = await place.run(places.tidy, place)
            if place.changes == before:
                place.sizes = found.sizes()
            if place.doubtful:
                await coalesce.settle(place)
                found = await place.run(places.tidy, place)
        for name, reason in {**found.unreadable, **found.odd}.items():
            log.warning("%s is left out: %s", place.directory / name, reason)
        return found

    async def _share(self, place: Place, location: str, uuid: str, switch: Switch | None) -> DiskInfo:
        """A copy-on-write copy."""
        async with making_disk(place, uuid) as path:
            chain = await chain_of(place, location)
            header = chain[0].header
            if switch is None and await place.run(layers.is_blank, place.directory, chain[0]):
                await make_image(place, path, header.virtual_size, backing=header.backing)
            else:
                depth = len(chain)
                if depth >= layers.MERGE_FROM and await merge_layers(place, chain):
                    depth -= 1
                if depth >= layers.CHAIN_LIMIT:
                    raise StorageError(numbers.CHAIN_TOO_LONG, f"disk {location} has {depth} layers already")
                await branch(place, location, uuid, header.virtual_size, base_name(self._new_uuid()), switch)
            return await publish(place, uuid)


async def _wait(work: asyncio.Future[None], seconds: float) -> None:
    await asyncio.wait({work}, timeout=seconds)
