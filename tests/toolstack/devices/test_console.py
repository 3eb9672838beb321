"""Consoles belong to machines, not to clients."""

from __future__ import annotations

from tests.toolstack.vm.world import World


async def test_clients_neither_make_nor_take_consoles(host: World) -> None:
    assert (await host.fails("console.create", {"other_config": {}}))[0] == "OPERATION_NOT_ALLOWED"
    vm = await host.machine(disks=0, cards=0)
    await host.call("VM.start", vm, False, False)
    consoles = host.get("VM", vm, "consoles")
    assert consoles
    for console in consoles:
        assert (await host.fails("console.destroy", console))[0] == "OPERATION_NOT_ALLOWED"
    assert host.get("VM", vm, "consoles") == consoles


async def test_a_left_over_console_can_go(host: World) -> None:
    with host.stack.database.transaction() as transaction:
        console = transaction.create("console", {"protocol": "rfb"})
    await host.call("console.destroy", console)
    assert host.stack.database.find("console", console) is None
