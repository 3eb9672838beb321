"""Layers that are merged below a running guest."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from domzero.host.hypervisor.protocol import DomainNotFoundError, HypervisorError
from domzero.host.hypervisor.spec import DiskFormat, DiskKind, DiskSource, DiskSpec, LayerPull
from tests.host.qemu.conftest import MIB, Guest, Machine
from tests.host.qemu.guest import until
from tests.host.qemu.layers import SIZE, Chain, Load, chain, guests_digest, identity, open_files, plug

pytestmark = pytest.mark.qemu

SLOW = MIB
"""Bytes a second: a pull of a few seconds."""


def process_of(machine: Machine, guest: Guest) -> int:
    return machine.hypervisor._domains[guest.domid].pid


def pulled(layers: Chain, upper: str, below: str | None, speed: int = 0) -> LayerPull:
    return LayerPull(layers.paths[upper], layers.paths[below] if below else None, below, speed)


async def test_an_intermediate_layer_takes_over_under_load(machine: Machine, guest: Guest) -> None:
    hypervisor, domid = machine.hypervisor, guest.domid
    layers, load = await chain(machine), Load(guest)
    await plug(machine, guest, layers.source())
    before = await guests_digest(guest)
    assert before == await layers.digest()
    pid = process_of(machine, guest)
    assert identity(layers.paths["b1"]) in open_files(pid)
    await load.start()
    told: list[float] = []
    await hypervisor.pull_layer(domid, 1, pulled(layers, "b2", "base", 2 * MIB), told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert len(told) > 1
    assert await load.stop() > 1
    assert await layers.backing("top") == ["top", "b2", "base"]
    assert identity(layers.paths["b1"]) not in open_files(pid)
    layers.paths["b1"].unlink()

    counted = (await hypervisor.statistics(domid)).disks[1]
    after = await guests_digest(guest)
    assert (await hypervisor.statistics(domid)).disks[1].read_bytes >= counted.read_bytes + SIZE
    await hypervisor.unplug_disk(domid, 1)
    assert await layers.digest() == after
    await plug(machine, guest, layers.source())
    assert await guests_digest(guest) == after


async def test_pulls_and_snapshots_in_turn(machine: Machine, guest: Guest) -> None:
    """Files are renamed after each snapshot, as a storage driver does, and layers QEMU was told of later vanish."""
    hypervisor, domid, console = machine.hypervisor, guest.domid, guest.console
    layers = await chain(machine)
    await plug(machine, guest, layers.source())
    pid = process_of(machine, guest)
    before = await guests_digest(guest)
    for number in (1, 2):
        layers.paths[f"s{number}"] = layers.paths["top"].rename(layers.paths["top"].with_name(f"s{number}"))
        options = ("-b", f"s{number}", "-F", "qcow2", str(SIZE))
        await hypervisor.switch_disk(domid, 1, machine.image("new", *options))
        layers.paths["top"] = layers.paths["top"].with_name("new").rename(layers.paths["top"])
        await console.run(f"echo {number} | dd of=/dev/vdb bs=1M seek=2{number} conv=fsync,notrunc 2>/dev/null")
    changed = await guests_digest(guest)
    assert changed != before
    assert await layers.backing("top") == ["top", "s2", "s1", "b2", "b1", "base"]
    await hypervisor.pull_layer(domid, 1, pulled(layers, "s2", "b1"), lambda _: None)
    assert await layers.backing("top") == ["top", "s2", "b1", "base"]
    assert not {identity(layers.paths[name]) for name in ("s1", "b2")} & open_files(pid)
    await hypervisor.pull_layer(domid, 1, pulled(layers, "top", "base"), lambda _: None)
    assert await layers.backing("top") == ["top", "base"]
    await hypervisor.pull_layer(domid, 1, pulled(layers, "top", None), lambda _: None)
    assert await layers.backing("top") == ["top"]
    assert not {identity(path) for name, path in layers.paths.items() if name != "top"} & open_files(pid)
    assert await guests_digest(guest) == changed
    assert (await hypervisor.statistics(domid)).disks[1].written_bytes > 0
    await hypervisor.unplug_disk(domid, 1)
    assert identity(layers.paths["top"]) not in open_files(pid)
    assert await layers.digest() == changed
    disc = machine.image("disc.iso", "1M", format=DiskFormat.RAW)
    for medium in (disc, None, disc):
        await hypervisor.change_medium(domid, 3, medium)


async def test_a_daemon_that_dies_in_mid_pull(machine: Machine, guest: Guest) -> None:
    layers, load, events = await chain(machine), Load(guest), machine.events
    await plug(machine, guest, layers.source())
    await load.start()
    told: list[float] = []
    job = asyncio.ensure_future(
        machine.hypervisor.pull_layer(guest.domid, 1, pulled(layers, "b2", "base", SLOW), told.append)
    )

    async def is_under_way() -> bool:
        return any(0 < fraction < 1 for fraction in told)

    await until(is_under_way)
    await machine.hypervisor.close()
    with pytest.raises(HypervisorError):
        await job
    machine.hypervisor = machine.driver()
    assert [status.domid for status in await machine.hypervisor.open(events)] == [guest.domid]
    domain = machine.hypervisor._domains[guest.domid]
    assert await domain.monitor.execute("query-block-jobs") == []
    assert await layers.backing("top") == ["top", "b2", "b1", "base"]
    await machine.hypervisor.pull_layer(guest.domid, 1, pulled(layers, "b2", "base"), told.append)
    await load.stop()
    after = await guests_digest(guest)
    await machine.hypervisor.unplug_disk(guest.domid, 1)
    assert await layers.backing("top") == ["top", "b2", "base"]
    assert await layers.digest() == after


async def save(machine: Machine, domid: int) -> None:
    image = machine.directory / "memory"
    image.touch()
    await machine.hypervisor.save(domid, image)
    await machine.hypervisor.unpause(domid)


INTERRUPTIONS: dict[str, Callable[[Machine, int], Awaitable[None]]] = {
    "unplug": lambda machine, domid: machine.hypervisor.unplug_disk(domid, 1),
    "snapshot": lambda machine, domid: machine.hypervisor.switch_disk(
        domid, 1, machine.image("new", "-b", "top", "-F", "qcow2", str(SIZE))
    ),
    "resize": lambda machine, domid: machine.hypervisor.resize_disk(domid, 1, 64 * MIB),
    "save": save,
}


async def begin(machine: Machine, guest: Guest, layers: Chain) -> asyncio.Future[None]:
    """A pull of the topmost layer that is under way."""
    hypervisor, pull, under_way = machine.hypervisor, pulled(layers, "top", "base", SLOW), asyncio.Event()
    job = asyncio.ensure_future(hypervisor.pull_layer(guest.domid, 1, pull, lambda _: under_way.set()))
    await asyncio.wait_for(under_way.wait(), 30)
    with pytest.raises(HypervisorError, match="already"):
        await hypervisor.pull_layer(guest.domid, 1, pull, lambda _: None)
    return job


@pytest.mark.parametrize("how", INTERRUPTIONS)
async def test_a_pull_gives_way(machine: Machine, guest: Guest, how: str) -> None:
    hypervisor, domid, layers = machine.hypervisor, guest.domid, await chain(machine)
    await plug(machine, guest, layers.source())
    before = await guests_digest(guest)
    job = await begin(machine, guest, layers)
    await INTERRUPTIONS[how](machine, domid)
    with pytest.raises(HypervisorError, match="urgent"):
        await job
    assert await layers.backing("top") == ["top", "b2", "b1", "base"]
    if how == "unplug":
        assert await layers.digest() == before
    elif how != "resize":
        assert await guests_digest(guest) == before
        await hypervisor.pull_layer(domid, 1, pulled(layers, "top", "base"), lambda _: None)
        assert await guests_digest(guest) == before


async def test_pulls_end_with_their_caller_and_with_their_domain(machine: Machine, guest: Guest) -> None:
    layers = await chain(machine)
    await plug(machine, guest, layers.source())
    before = await guests_digest(guest)
    job = await begin(machine, guest, layers)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert await guests_digest(guest) == before
    job = await begin(machine, guest, layers)
    await machine.hypervisor.destroy(guest.domid)
    with pytest.raises(DomainNotFoundError):
        await job
    assert await layers.backing("top") == ["top", "b2", "b1", "base"]
    assert await layers.digest() == before


async def test_pulls_that_cannot_be(machine: Machine, guest: Guest) -> None:
    hypervisor, domid = machine.hypervisor, guest.domid
    layers = await chain(machine)
    await plug(machine, guest, layers.source())
    stranger = machine.image("stranger", str(SIZE))
    wrong = (
        (LayerPull(stranger.path, None, None), "no layer"),
        (LayerPull(layers.paths["top"], stranger.path, "stranger"), "no layer"),
        (LayerPull(machine.directory / "missing", None, None), "No such file"),
        (LayerPull(layers.paths["top"], layers.paths["b1"], None), "come together"),
        (LayerPull(layers.paths["top"], None, "b1"), "come together"),
        (LayerPull(layers.paths["b1"], layers.paths["b2"], "b2"), "backing"),
    )
    for pull, message in wrong:
        with pytest.raises(HypervisorError, match=message):
            await hypervisor.pull_layer(domid, 1, pull, lambda _: None)
    for slot in (3, 5):
        with pytest.raises(HypervisorError, match=r"empty|no disk"):
            await hypervisor.pull_layer(domid, slot, pulled(layers, "top", None), lambda _: None)
    assert await layers.backing("top") == ["top", "b2", "b1", "base"]
    await hypervisor.plug_disk(domid, DiskSpec(2, DiskKind.DISK, DiskSource(stranger.path, DiskFormat.QCOW2)))
    pulls = [
        hypervisor.pull_layer(domid, 1, pulled(layers, "b2", None), lambda _: None),
        hypervisor.pull_layer(domid, 2, LayerPull(stranger.path, None, None), lambda _: None),
    ]
    await asyncio.gather(*pulls)
    assert await layers.backing("top") == ["top", "b2"]
