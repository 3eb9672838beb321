"""Bonds of the kernel: two hosts joined by two cables, one of which breaks."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from domzero.host.network.plan import AddressMode, AddressSpec, BondSpec, BridgeSpec, NetworkPlan
from domzero.host.network.protocol import DeviceState, NetworkError
from tests.host.network.stage import Host, card, frame, reach
from tests.lab.wire import layout, two_hosts

GUEST, FAR_GUEST = "02:00:00:00:01:01", "02:00:00:00:01:11"
PROPERTIES = {"miimon": "50", "downdelay": "100", "updelay": "125"}
BOND = BondSpec("bond0", ("eth1", "eth2"), "active-backup", properties=PROPERTIES)
OUT = BridgeSpec("xapi5", uplink="bond0", addresses=AddressSpec(AddressMode.STATIC, "192.0.2.7/24"))
TAGGED = BridgeSpec("xapi6", uplink="bond0", tag=6)
PLAN = NetworkPlan(bonds=(BOND,), bridges=(OUT, TAGGED))


async def bond_of(host: Host) -> DeviceState:
    return next(device for device in await host.backend.devices() if device.name == "bond0")


async def switch(host: Host) -> None:
    """The far ends of both cables are ports of one bridge, as on a switch that knows nothing of bonds."""
    await host.kernel("link", "add", ifname="switch", kind="bridge", br_stp_state=0, br_forward_delay=0)
    for name in ("switch", "far-eth1", "far-eth2"):
        await host.kernel("link", "set", index=name, state="up")
    for name in ("far-eth1", "far-eth2"):
        await host.kernel("link", "set", index=name, master="switch")


async def joined(first: Host, second: Host, far_bridge: str) -> tuple[int, int]:
    """A machine on the bond, and one on the other side."""
    await first.backend.connect(card(1, bridge="xapi5", mac=GUEST))
    await second.backend.connect(card(2, bridge=far_bridge, mac=FAR_GUEST))
    return await first.machine("vif1.0"), await second.machine("vif2.0")


@pytest.mark.parametrize("mode", ["active-backup", "balance-slb"])
async def test_traffic_goes_on_when_a_cable_breaks(tmp_path: Path, mode: str) -> None:
    async with two_hosts(tmp_path, "eth1", "eth2") as (first, second):
        await first.kernel("addr", "add", index="eth1", address="203.0.113.5", prefixlen=24)
        before = await layout(first)
        await switch(second)
        await first.backend.apply(replace(PLAN, bonds=(replace(BOND, mode=mode),)))
        here, there = await joined(first, second, "switch")
        try:
            await reach(here, there, frame(GUEST))
            bond = await bond_of(first)
            assert (bond.mac, bond.carrier) == ("02:00:00:00:00:71", True)
            assert bond.active_member in ("eth1", "eth2")
            await second.kernel("link", "set", index=f"far-{bond.active_member}", state="down")
            await reach(here, there, frame(GUEST, payload=b"after the break"))
            await reach(there, here, frame(FAR_GUEST))
            other = (await bond_of(first)).active_member
            assert {bond.active_member, other} == {"eth1", "eth2"}
            await second.kernel("link", "set", index=f"far-{other}", state="down")
        finally:
            os.close(here)
            os.close(there)
        await first.backend.disconnect(1, 0)
        await first.backend.apply(NetworkPlan())
        assert await layout(first) == before


async def test_two_bonds_agree_by_lacp(tmp_path: Path) -> None:
    async with two_hosts(tmp_path, "eth1", "eth2") as (first, second):
        mine = replace(
            BOND, mode="lacp", properties={**PROPERTIES, "lacp-time": "fast", "hashing_algorithm": "src_mac"}
        )
        theirs = replace(mine, members=("far-eth1", "far-eth2"))
        await second.backend.apply(NetworkPlan(bonds=(theirs,), bridges=(OUT, TAGGED)))
        await first.backend.apply(NetworkPlan(bonds=(mine,), bridges=(replace(OUT, addresses=AddressSpec()), TAGGED)))
        here, there = await joined(first, second, "xapi5")
        try:
            await reach(here, there, frame(GUEST))
        finally:
            os.close(here)
            os.close(there)
        options = (await layout(first))["bond0"].options
        assert (options["mode"], options["ad_lacp_rate"], options["xmit_hash_policy"]) == (4, 1, 0)
        assert (await bond_of(first)).carrier


async def test_a_bond_changes_under_traffic_and_the_same_plan_changes_nothing(tmp_path: Path) -> None:
    async with two_hosts(tmp_path, "eth1", "eth2", "eth3") as (host, _):
        await host.backend.apply(PLAN)
        first = await layout(host)
        assert first["bond0"].options == {"mode": 1, "miimon": 50, "downdelay": 100, "updelay": 100}
        await host.backend.apply(PLAN)
        index = (await host.links())["bond0"].index
        slower = replace(BOND, members=("eth1", "eth3"), properties={"miimon": "200"})
        await host.backend.apply(replace(PLAN, bonds=(slower,)))
        present, links = await layout(host), await host.links()
        assert links["bond0"].index == index
        assert present["bond0"].options == {"mode": 1, "miimon": 200, "downdelay": 200, "updelay": 31000}
        assert {name for name, state in present.items() if state.master == "bond0"} == {"eth1", "eth3"}
        assert present["eth2"].mac == "02:00:00:00:00:72"
        await host.backend.apply(replace(PLAN, bonds=(replace(BOND, mode="lacp"),)))
        present = await layout(host)
        assert present["bond0"].options["mode"] == 4
        assert (present["bond0"].master, present["bond0.6"].master) == ("xapi5", "xapi6")
        assert await host.addresses("xapi5") == {"192.0.2.7/24"}


async def test_a_bond_that_cannot_be_leaves_everything_as_it_was(tmp_path: Path) -> None:
    async with two_hosts(tmp_path, "eth1", "eth2") as (host, _):
        await host.command("ip", "link", "add", "link", "eth2", "name", "above", "type", "vlan", "id", "6")
        await host.backend.apply(NetworkPlan(bonds=(BOND,), bridges=(OUT,)))
        before = await layout(host)
        await host.command("ip", "link", "add", "link", "bond0", "name", "above6", "type", "vlan", "id", "6")
        between = await layout(host)
        with pytest.raises(NetworkError):
            await host.backend.apply(PLAN)
        assert await layout(host) == between
        await host.command("ip", "link", "del", "above6")
        assert await layout(host) == before
