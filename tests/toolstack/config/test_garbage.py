"""Rows that lost what they belonged to."""

from __future__ import annotations

import asyncio

from domzero.idl.types import NULL_REF
from domzero.toolstack.garbage import LOOKS, Emptying, Removal, collect_garbage, find_garbage
from tests.toolstack.devices.test_vbd import CD, cd_image
from tests.toolstack.vm.world import World


async def test_a_sound_database_has_none(host: World) -> None:
    vm = await host.machine(disks=2, cards=2)
    await host.call("VM.start", vm, False, False)
    assert find_garbage(host.stack.database.rows) == []


async def test_devices_of_a_vanished_machine(host: World) -> None:
    vm = await host.machine(disks=1, cards=1)
    with host.stack.database.transaction() as transaction:
        transaction.destroy("VM", vm)
    assert {item.cls for item in find_garbage(host.stack.database.rows) if isinstance(item, Removal)} == {
        "VBD", "VIF", "VM_metrics",
    }  # fmt: skip
    assert await collect_garbage(host.stack) == 5
    for cls in ("VBD", "VIF", "VBD_metrics", "VIF_metrics"):
        assert host.stack.database.refs(cls) == ()
    assert len(host.stack.database.refs("VDI")) == 1
    assert await collect_garbage(host.stack) == 0


async def test_a_vanished_disk_and_a_vanished_disc(host: World) -> None:
    vm = await host.machine(disks=1, cards=0)
    (hard,) = host.get("VM", vm, "VBDs")
    disc = await cd_image(host)
    drive = await host.call("VBD.create", {**CD, "VM": vm, "VDI": disc, "userdevice": "3"})
    with host.stack.database.transaction() as transaction:
        transaction.destroy("VDI", disc)
        transaction.destroy("VDI", host.get("VBD", hard, "VDI"))
    found = find_garbage(host.stack.database.rows)
    assert set(found) == {Emptying(drive), Removal("VBD", hard)}
    await collect_garbage(host.stack)
    assert host.get("VM", vm, "VBDs") == (drive,)
    assert (host.get("VBD", drive, "VDI"), host.get("VBD", drive, "empty")) == (NULL_REF, True)
    assert "insert" in host.get("VBD", drive, "allowed_operations")


async def test_disks_of_a_vanished_repository_and_figures_nobody_reads(host: World) -> None:
    await host.machine(disks=1, cards=0)
    sr = host.get("pool", host.stack.pool, "default_SR")
    with host.stack.database.transaction() as transaction:
        transaction.destroy("SR", sr)
        for cls in ("VM_metrics", "VM_guest_metrics", "VBD_metrics", "host_metrics"):
            transaction.create(cls, {})
        transaction.create("console", {"protocol": "rfb"})
    await collect_garbage(host.stack)
    for cls in ("VDI", "VBD", "VBD_metrics", "VM_guest_metrics", "console"):
        assert host.stack.database.refs(cls) == ()
    assert len(host.stack.database.refs("host_metrics")) == 1
    assert all(host.get("PBD", pbd, "SR") != sr for pbd in host.stack.database.refs("PBD"))


async def test_others_have_their_turn_meanwhile(host: World) -> None:
    looking = asyncio.ensure_future(collect_garbage(host.stack))
    turns = 0
    while not looking.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns >= len(LOOKS)
