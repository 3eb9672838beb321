"""A daemon killed at any moment of work on disks: what the next one finds (docs/decisions/0013)."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from domzero.engine.errors import ApiError
from domzero.engine.steps import before_step
from domzero.host.hypervisor.spec import DiskSource
from domzero.host.storage.protocol import NOTHING, DiskInfo, Progress, Repository
from domzero.host.storage.sim import SimStorage
from domzero.idl.types import Ref
from domzero.toolstack.storage.repositories import attached
from tests.toolstack.devices.test_vdi import default_sr, disk
from tests.toolstack.vm.test_adoption import Restarts
from tests.toolstack.vm.world import DISK, World

T = TypeVar("T")
MIB = 1 << 20
MOST = 20
"""More moments than any operation has."""


KILLED = ("INTERNAL_ERROR", "killed here")


class Watched(SimStorage):
    """Tells of the moments before and after each change on the medium."""

    tell: Callable[[], None] = staticmethod(lambda: None)

    async def create_disk(
        self, repository: Repository, uuid: str, virtual_size: int, sm_config: Mapping[str, str] = NOTHING
    ) -> DiskInfo:
        return await self._between(super().create_disk(repository, uuid, virtual_size, sm_config))

    async def destroy_disk(self, repository: Repository, location: str) -> None:
        await self._between(super().destroy_disk(repository, location))

    async def clone_disk(self, repository: Repository, location: str, uuid: str) -> DiskInfo:
        return await self._between(super().clone_disk(repository, location, uuid))

    async def snapshot_disk(
        self, repository: Repository, location: str, uuid: str, switch: Callable[[DiskSource], Awaitable[None]] | None
    ) -> DiskInfo:
        return await self._between(super().snapshot_disk(repository, location, uuid, switch))

    async def copy_disk(
        self, source: DiskSource, repository: Repository, uuid: str, virtual_size: int, progress: Progress
    ) -> DiskInfo:
        return await self._between(super().copy_disk(source, repository, uuid, virtual_size, progress))

    async def resize_disk(
        self,
        repository: Repository,
        location: str,
        virtual_size: int,
        live: Callable[[int], Awaitable[None]] | None = None,
    ) -> DiskInfo:
        return await self._between(super().resize_disk(repository, location, virtual_size, live))

    async def _between(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            self.tell()
        except BaseException:
            work.close()
            raise
        done = await work
        self.tell()
        return done


OPERATIONS: dict[str, Callable[[World, Ref], Awaitable[Any]]] = {
    "create": lambda host, vdi: host.call("VDI.create", {**DISK, "SR": default_sr(host)}),
    "clone": lambda host, vdi: host.call("VDI.clone", vdi, {}),
    "snapshot": lambda host, vdi: host.call("VDI.snapshot", vdi, {}),
    "copy": lambda host, vdi: host.call("VDI.copy", vdi, default_sr(host)),
    "resize": lambda host, vdi: host.call("VDI.resize", vdi, str(64 * MIB)),
    "destroy": lambda host, vdi: host.call("VDI.destroy", vdi),
}


@contextmanager
def killed_at(number: int, storage: Watched, directory: Path, copy: Path) -> Iterator[list[int]]:
    """Copy what is on disk at the moment of that number, and let the work fail there: it is gone for who comes next."""
    moments: list[int] = []

    def moment(_: str = "") -> None:
        moments.append(len(moments))
        if len(moments) == number + 1:
            shutil.copytree(directory, copy, ignore=shutil.ignore_patterns("*-shm"))
            raise ApiError(*KILLED)

    storage.tell = moment
    token = before_step.set(moment)
    try:
        yield moments
    finally:
        before_step.reset(token)
        storage.tell = lambda: None


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_nothing_is_lost_and_nothing_leaks(tmp_path: Path, operation: str) -> None:
    for number in range(MOST):
        first, second = Restarts(tmp_path / f"{number}"), Restarts(tmp_path / f"{number} again")
        first.directory.mkdir()
        async with first.daemon() as host:
            storage = await watch(host)
            vdi = await disk(host)
            other = await disk(host, name_label="another")
            with killed_at(number, storage, first.directory, second.directory) as moments:
                assert await outcome_of(OPERATIONS[operation](host, vdi)) in (None, KILLED)
        if len(moments) <= number:
            break
        async with second.daemon() as host:
            await assert_sound(host, vdi, other, operation)
    assert 2 <= number < MOST


async def outcome_of(call: Awaitable[Any]) -> tuple[str, ...] | None:
    """The error of a call; None when it succeeded."""
    try:
        await call
    except ApiError as error:
        return error.description
    return None


async def watch(host: World) -> Watched:
    storage = Watched(host.clock, host.stack.settings.state_dir / "storage")
    _, repository = attached(host.stack, default_sr(host))
    await storage.attach(repository)
    host.stack.storage = {**host.stack.storage, "file": storage}
    return storage


async def assert_sound(host: World, vdi: Ref, other: Ref, operation: str) -> None:
    """Each file has a row and each row that is not missing a file; what was acknowledged is there."""
    rows = {ref: row.record for ref, row in host.stack.database.rows("VDI").items()}
    present = {f"{record['location']}.raw" for record in rows.values() if not record["missing"]}
    assert host.files() == present
    assert not rows[other]["missing"]
    assert vdi in rows
    assert {ref for ref, record in rows.items() if record["missing"]} <= ({vdi} if operation == "destroy" else set())
    assert all(record["current_operations"] == {} for record in rows.values())
    if operation == "resize":
        driver, repository = attached(host.stack, default_sr(host))
        on_medium = (await driver.update_disk(repository, rows[vdi]["location"])).virtual_size
        assert rows[vdi]["virtual_size"] == on_medium
    for ref in rows:
        await host.call("VDI.destroy", ref)
    assert host.files() == set()


@pytest.mark.slow
async def test_a_repository_in_the_making(tmp_path: Path) -> None:
    """Its row is there before its medium is touched, so that there is something to destroy it by."""
    for number in range(MOST):
        first, second = Restarts(tmp_path / f"{number}"), Restarts(tmp_path / f"{number} again")
        first.directory.mkdir()
        async with first.daemon() as host:
            storage = await watch(host)
            known = set(host.stack.database.refs("SR"))
            with killed_at(number, storage, first.directory, second.directory) as moments:
                where = {"location": "/sim/other"}
                making = host.call("SR.create", host.stack.host, where, "0", "n", "", "file", "", False)
                assert await outcome_of(making) in (None, KILLED)
        if len(moments) <= number:
            break
        async with second.daemon() as host:
            media = {path.name for path in (second.directory / "storage").iterdir()}
            assert media <= {row.record["uuid"] for row in host.stack.database.rows("SR").values()}
            for sr in set(host.stack.database.refs("SR")) - known:
                (pbd,) = host.get("SR", sr, "PBDs")
                await host.call("PBD.unplug", pbd)
                await host.call("SR.forget", sr)
            assert set(host.stack.database.refs("SR")) == known
    assert 2 <= number < MOST
