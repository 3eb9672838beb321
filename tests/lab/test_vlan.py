"""VLANs of the kernel: two hosts joined by one cable, and machines that may or may not hear each other."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from domzero.host.network.plan import AddressMode, AddressSpec, BridgeSpec, NetworkPlan
from domzero.host.network.protocol import NetworkError
from tests.host.network.stage import Host, card, frame, reach, received
from tests.lab.wire import layout, two_hosts

NETWORKS = (("xenbr1", -1), ("xapi10", 10), ("xapi20", 20))


def plan(uplink: str) -> NetworkPlan:
    """The cable's untagged packets, and two of its VLANs."""
    return NetworkPlan(bridges=tuple(BridgeSpec(name, uplink=uplink, tag=tag) for name, tag in NETWORKS))


async def machines(host: Host, domid: int) -> list[int]:
    """A machine on each of the networks."""
    found = []
    for number, (bridge, _) in enumerate(NETWORKS):
        await host.backend.connect(card(domid + number, bridge=bridge, mac=mac(domid + number)))
        found.append(await host.machine(f"vif{domid + number}.0"))
    return found


def mac(number: int) -> str:
    return f"02:00:00:00:01:{number:02x}"


async def test_machines_hear_their_own_vlan_and_no_other(tmp_path: Path) -> None:
    async with two_hosts(tmp_path, "eth1") as (first, second):
        before = await layout(first)
        await first.backend.apply(plan("eth1"))
        await second.backend.apply(plan("far-eth1"))
        here, there = await machines(first, 1), await machines(second, 11)
        try:
            for number, (sender, receiver) in enumerate(zip(here, there, strict=True)):
                await reach(sender, receiver, frame(mac(1 + number)))
                await reach(receiver, sender, frame(mac(11 + number)))
            for machine in there:
                received(machine)
            await reach(here[1], there[1], frame(mac(2), payload=b"only for ten"))
            heard = [[data for data in received(machine) if b"only for ten" in data] for machine in there]
            assert heard[0] == heard[2] == []
            devices = {device.name: device for device in await first.backend.devices()}
            assert devices.keys() == {name for name, _ in NETWORKS}
            assert all(device.carrier for device in devices.values())
            await first.backend.apply(plan("eth1"))
            assert await first.command("ip", "-d", "link", "show", "eth1.20")
        finally:
            for machine in (*here, *there):
                os.close(machine)
        for domid in (1, 2, 3):
            await first.backend.disconnect(domid, 0)
        await first.backend.apply(NetworkPlan())
        assert await layout(first) == before


async def test_an_interface_keeps_its_addresses_when_only_a_vlan_of_it_is_used(tmp_path: Path) -> None:
    async with two_hosts(tmp_path, "eth1") as (host, _):
        await host.kernel("addr", "add", index="eth1", address="203.0.113.5", prefixlen=24)
        static = AddressSpec(AddressMode.STATIC, "192.0.2.7/24")
        tagged = BridgeSpec("xapi10", uplink="eth1", tag=10, addresses=static)
        await host.backend.apply(NetworkPlan(bridges=(tagged,)))
        assert await host.addresses("eth1") == {"203.0.113.5/24"}
        assert await host.addresses("xapi10") == {"192.0.2.7/24"}
        index = (await host.links())["xapi10"].index
        await host.backend.apply(NetworkPlan(bridges=(replace(tagged, tag=11),)))
        links = await host.links()
        assert links["xapi10"].index == index
        assert links["eth1.11"].master == index
        assert "eth1.10" not in links


async def test_a_vlan_that_somebody_else_made_is_not_taken(tmp_path: Path) -> None:
    async with two_hosts(tmp_path, "eth1") as (host, _):
        await host.command("ip", "link", "add", "link", "eth1", "name", "mine", "type", "vlan", "id", "10")
        before = await layout(host)
        with pytest.raises(NetworkError, match=r"eth1\.10"):
            await host.backend.apply(NetworkPlan(bridges=(BridgeSpec("xapi10", uplink="eth1", tag=10),)))
        assert await layout(host) == before
