"""Machines from archives: what `PUT /import` and its kin have in common, whatever the archive comes from.

First all rows are made, then the disks are filled, then the machines are released. A failure, a cancellation and a
client that goes away take everything back, rows and disks, unless `force` was asked for: then what is there stays.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from domzero.engine.context import Context
from domzero.engine.errors import ApiError
from domzero.engine.steps import Steps
from domzero.finish import in_thread
from domzero.host.compression.protocol import CompressionError, Receive
from domzero.idl.types import NULL_REF, Ref
from domzero.toolstack.stack import Stack
from domzero.toolstack.storage import disks
from domzero.toolstack.transfer.import_legacy import manifest_of
from domzero.toolstack.transfer.import_notes import notes_of
from domzero.toolstack.transfer.import_plan import NewMachine, Plan, plan_import
from domzero.toolstack.transfer.import_rows import (
    INCOMPLETE,
    Made,
    complete_objects,
    record_objects,
    release_objects,
    remove_objects,
)
from domzero.toolstack.transfer.import_stream import BlockMemory, DiskFiller, Target, events
from domzero.toolstack.transfer.progress import Progress
from domzero.toolstack.transfer.remap import NewDisk, Options
from domzero.toolstack.vm import images
from domzero.wire.xva.manifest import decode_manifest
from domzero.wire.xva.model import MAX_MANIFEST, Appliance, Event, Manifest, ManifestXml, XvaError

LARGEST_WITH_DISKS: Final = 16 << 20
"""Bytes of the description of machines that come with their disks: some hundreds of them."""
NO_DIRECTORIES: Final[Mapping[str, str]] = {}


async def import_archive(
    stack: Stack, context: Context, receive: Receive, options: Options, *, dry_run: bool = False
) -> tuple[Ref, ...]:
    """Make the machines of an archive, which `receive` gives in pieces; their references, snapshots left out.

    With `dry_run` nothing is made. Raises the documented errors; then nothing is left, unless `force` was asked for.
    """
    largest = LARGEST_WITH_DISKS if options.content else MAX_MANIFEST
    memory = BlockMemory()
    try:
        async with (
            stack.compression.decompressing(receive) as archive,
            aclosing(events(archive, largest, memory)) as found,
        ):
            manifest, names = await _manifest(found)
            plan = plan_import(stack.database, manifest, options, stack.settings, stack.database.new_uuid)
            if dry_run:
                return ()
            passed_over = frozenset(item.id for item in manifest.objects)
            work = _Import(stack, context, plan, options, names, passed_over, memory)
            return await work.carry_out(found)
    except XvaError as error:
        raise ApiError(error.code, *error.parameters) from error
    except CompressionError as error:
        raise ApiError("IMPORT_ERROR", str(error)) from error


async def _manifest(found: AsyncGenerator[Event, None]) -> tuple[Manifest, Mapping[str, str]]:
    """The archive's description, and, where its files have other names for disks, their identifiers by name."""
    event = await anext(found)
    assert isinstance(event, ManifestXml)
    described = await in_thread(decode_manifest, event.xml)
    return manifest_of(described) if isinstance(described, Appliance) else (described, NO_DIRECTORIES)


@dataclass(slots=True)
class _Import:
    """One import. `names` see `_manifest`; `passed_over` are names in the archive that are no error."""

    stack: Stack
    context: Context
    plan: Plan
    options: Options
    names: Mapping[str, str]
    passed_over: frozenset[str]
    memory: BlockMemory
    made: Made = field(default_factory=Made)
    keeps: bool = False
    """Whether what was made stays although the import fails."""

    async def carry_out(self, found: AsyncIterator[Event]) -> tuple[Ref, ...]:
        stack = self.stack
        # What was made is taken back before anybody else may touch it.
        async with AsyncExitStack() as claims:
            try:
                async with Steps() as steps:
                    await self._claim(claims)
                    await self._make_disks(steps, claims)
                    await steps.do("record the machines", self._record, self._remove)
                    await stack.database.durable()
                    for machine in self.plan.machines:
                        await self._make_image(steps, machine)
                    self.keeps = self.options.force
                    notes = await self._fill(steps, found)
                    await steps.do("complete the machines", lambda: self._complete(notes, suspended=True))
            except BaseException:
                if self.keeps:
                    self._complete({machine.id: machine.notes for machine in self.plan.machines}, suspended=False)
                raise
            finally:
                release_objects(stack, self.context, self.made)
        await stack.database.durable()
        lone = [machine for machine in self.plan.machines if not machine.fields["is_a_snapshot"]]
        return tuple(self.made.machines[machine.id] for machine in lone)

    async def _claim(self, claims: AsyncExitStack) -> None:
        """Hold the machines that are replaced."""
        gate = self.stack.gates["VM"]
        for machine in self.plan.machines:
            if machine.replaces != NULL_REF:
                await claims.enter_async_context(gate.operation(self.context, machine.replaces, "destroy"))

    async def _make_disks(self, steps: Steps, claims: AsyncExitStack) -> None:
        """The repository is busy for as long as this takes, and not while the disks are filled: hours, perhaps."""
        if not self.plan.found.disks:
            return
        async with self.stack.gates["SR"].operation(self.context, self.options.sr, "vdi_create"):
            for disk in self.plan.found.disks.values():
                await self._make_disk(steps, claims, disk)

    async def _make_disk(self, steps: Steps, claims: AsyncExitStack, disk: NewDisk) -> None:
        async def make() -> None:
            fields = {
                **disk.fields,
                "is_a_snapshot": disk.fields["is_a_snapshot"] and disk.snapshot_of in self.plan.found.disks,
                "other_config": {**disk.fields["other_config"], INCOMPLETE: self.context.task.ref},
            }
            self.made.disks[disk.id] = await disks.create_vdi(
                self.stack, self.options.sr, virtual_size=disk.size, **fields
            )

        async def remove() -> None:
            if not self.keeps:
                await disks.destroy_vdi(self.stack, self.made.disks[disk.id])

        await steps.do("make a disk", make, remove)
        # A daemon that is killed must know afterwards what it has to remove.
        await self.stack.database.durable()
        vdi = self.made.disks[disk.id]
        await claims.enter_async_context(self.stack.gates["VDI"].operation(self.context, vdi, "blocked"))

    def _record(self) -> None:
        record_objects(self.stack, self.context, self.plan, self.made)

    def _remove(self) -> None:
        if not self.keeps:
            remove_objects(self.stack, self.made)

    async def _make_image(self, steps: Steps, machine: NewMachine) -> None:
        """A file for the machine's saved memory, unless another machine of the archive has the same."""
        stack, vm = self.stack, self.made.machines[machine.id]
        if not machine.image:
            return
        known = self.made.images.get(machine.image)
        if known is not None:
            with stack.database.transaction() as transaction:
                transaction.update("VM", vm, suspend_VDI=known)
            return
        uuid = stack.database.new_uuid()
        image = await steps.do("remember the image", lambda: images.remember(stack, vm, uuid))
        steps.on_failure("discard the image", lambda: images.discard(stack, vm, image))
        await steps.do("make the image", lambda: images.make(stack, image))
        path, size = await images.path(stack, image), self.plan.images[machine.image].size
        try:
            await in_thread(os.truncate, path, size)
        except OSError as error:
            raise ApiError("IMPORT_ERROR", f"Saved memory cannot have {size} bytes here: {error.strerror}.") from error
        self.made.images[machine.image] = image

    async def _fill(self, steps: Steps, found: AsyncIterator[Event]) -> dict[str, tuple[str, ...]]:
        """Take the content of all disks; what is to be said of each machine."""
        if not self.options.content:
            return self._notes({})
        progress = Progress(self.context.task.set_progress, self.stack.clock, self.plan.expected)
        async with self._filler(progress) as filler:
            await steps.do("fill the disks", lambda: _take_all(filler, found))
            for image in self.made.images.values():
                await steps.do("record the image", partial(images.complete, self.stack, image))
            for vdi in self.made.disks.values():
                await disks.update_vdi(self.stack, vdi)
            sectors = {self.names.get(name, name): sector for name, sector in filler.first_sectors.items()}
        return self._notes(sectors)

    def _notes(self, sectors: Mapping[str, bytes]) -> dict[str, tuple[str, ...]]:
        return {
            machine.id: notes_of(self.stack, self.plan, machine, self.made.machines[machine.id], sectors)
            for machine in self.plan.machines
        }

    @asynccontextmanager
    async def _filler(self, progress: Progress) -> AsyncIterator[DiskFiller]:
        by_id = {id: name for name, id in self.names.items()}
        targets: dict[str, Target] = {}
        for wanted, made in ((self.plan.found.disks, self.made.disks), (self.plan.images, self.made.images)):
            for id, vdi in made.items():
                source = await disks.disk_source(self.stack, vdi)
                targets[by_id.get(id, id)] = Target(source, wanted[id].size)
        passed_over = self.passed_over | self.names.keys()
        filler = DiskFiller(self.stack.contents, targets, passed_over, progress, self.memory, force=self.options.force)
        try:
            yield filler
        finally:
            await filler.close()

    def _complete(self, notes: Mapping[str, tuple[str, ...]], *, suspended: bool) -> None:
        complete_objects(self.stack, self.plan, self.made, notes, suspended=suspended)


async def _take_all(filler: DiskFiller, found: AsyncIterator[Event]) -> None:
    async for event in found:
        await filler.take(event)
    await filler.finish()
