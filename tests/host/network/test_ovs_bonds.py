"""Bonds of Open vSwitch: two cables to the same place, of which one fails."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

import pytest

from domzero.host.network.openvswitch.backend import OpenVSwitchNetwork
from domzero.host.network.plan import BondSpec, BridgeSpec, NetworkPlan
from domzero.host.network.protocol import DeviceState, NetworkError
from tests.host.network.stage import GUEST, card, frame, passes, received, send
from tests.host.network.switched import FIRST_MAC, NEEDS, SECOND_MAC, SwitchedHost, in_vlan

pytestmark = NEEDS

OTHER, OUTSIDE = "02:00:00:00:00:02", "02:00:00:00:00:99"
BACKUP = BondSpec("bond0", ("eth1", "eth2"), "active-backup", properties={"miimon": "100", "updelay": "50"})
OUT, SEVEN = BridgeSpec("xapi1", uplink="bond0"), BridgeSpec("xapi7", uplink="bond0", tag=7)


async def bond(host: SwitchedHost) -> DeviceState:
    return next(device for device in await host.backend.devices() if device.name == "bond0")


async def active_member(host: SwitchedHost) -> str:
    """The member that carries, once one does: nobody announces it."""
    async with asyncio.timeout(30):
        while True:
            if active := (await bond(host)).active_member:
                return active
            await asyncio.sleep(0.05)


async def test_a_bond_goes_on_when_a_cable_fails(switched: SwitchedHost, wires: tuple[int, int]) -> None:
    await switched.backend.apply(NetworkPlan(bonds=(BACKUP,), bridges=(OUT, SEVEN)))
    assert await switched.addresses("eth1") == set()
    await switched.backend.connect(card(1, bridge="xapi7"))
    near = await switched.machine("vif1.0")
    try:
        active = await active_member(switched)
        first = ("eth1", "eth2").index(active)
        await passes(near, frame(GUEST), wires[first], in_vlan(7, frame(GUEST)))
        await passes(wires[first], in_vlan(7, frame(OUTSIDE)), near, frame(OUTSIDE))
        await switched.kernel("link", "set", index=active, state="down")
        other = "eth2" if active == "eth1" else "eth1"
        await passes(near, frame(GUEST), wires[1 - first], in_vlan(7, frame(GUEST)))
        await passes(wires[1 - first], in_vlan(7, frame(OUTSIDE)), near, frame(OUTSIDE))
        state = await bond(switched)
        assert (state.active_member, state.carrier, state.mac) == (other, True, FIRST_MAC)
    finally:
        os.close(near)
    before = set(await switched.names())
    await switched.backend.apply(NetworkPlan())
    assert {"eth1", "eth2"} < before
    assert await switched.addresses("eth1") == {"203.0.113.5/24", "2001:db8:5::5/64"}


async def test_a_balancing_bond_goes_on_when_a_cable_fails(switched: SwitchedHost, wires: tuple[int, int]) -> None:
    balancing = replace(BACKUP, mode="balance-slb", properties={"miimon": "100"})
    await switched.backend.apply(NetworkPlan(bonds=(balancing,), bridges=(OUT,)))
    await switched.backend.connect(card(1, bridge="xapi1"))
    near = await switched.machine("vif1.0")

    async def carries() -> int:
        """The cable that a frame leaves by."""
        for wire in wires:
            received(wire)
        async with asyncio.timeout(30):
            while True:
                send(near, frame(GUEST))
                for number, wire in enumerate(wires):
                    if frame(GUEST) in received(wire):
                        return number
                await asyncio.sleep(0.05)

    try:
        first = await carries()
        await passes(wires[first], frame(OUTSIDE, GUEST), near, frame(OUTSIDE, GUEST))
        await switched.kernel("link", "set", index=f"eth{first + 1}", state="down")
        assert await carries() == 1 - first
        await passes(wires[1 - first], frame(OUTSIDE, GUEST), near, frame(OUTSIDE, GUEST))
        assert (await bond(switched)).active_member == ""
    finally:
        os.close(near)


async def test_modes_and_properties_change_under_traffic(switched: SwitchedHost) -> None:
    async def apply(spec: BondSpec) -> None:
        await switched.backend.apply(NetworkPlan(bonds=(spec,), bridges=(OUT,)))

    def settings(*columns: str) -> list[str]:
        return [switched.switch.control("get", "Port", "bond0", column).strip() for column in columns]

    await apply(BACKUP)
    identity = switched.switch.control("get", "Port", "bond0", "_uuid")
    assert settings("bond_mode", "lacp", "bond_updelay") == ["active-backup", "off", "50"]
    assert settings("other_config:bond-miimon-interval") == ['"100"']
    assert (await bond(switched)).mac == FIRST_MAC
    await apply(replace(BACKUP, mode="balance-slb", mac=SECOND_MAC, properties={"rebalance-interval": "5000"}))
    assert settings("bond_mode", "lacp", "bond_updelay") == ["balance-slb", "off", "0"]
    assert settings("other_config") == ['{bond-rebalance-interval="5000"}']
    assert (await bond(switched)).mac == (await switched.links())["xapi1"].mac == SECOND_MAC
    await apply(replace(BACKUP, mode="lacp", properties={"lacp-time": "fast"}))
    assert settings("bond_mode", "lacp") == ["balance-tcp", "active"]
    assert settings("other_config:lacp-time", "other_config:lacp-fallback-ab") == ["fast", '"true"']
    await apply(replace(BACKUP, mode="lacp", properties={"hashing_algorithm": "src_mac", "lacp-fallback-ab": "false"}))
    assert settings("bond_mode", "lacp") == ["balance-slb", "active"]
    assert settings("other_config:lacp-time", "other_config:lacp-fallback-ab") == ["slow", '"false"']
    assert switched.switch.control("get", "Port", "bond0", "_uuid") == identity
    alone = replace(BACKUP, members=("eth2",))
    await apply(alone)
    assert switched.bridge_of("eth2") == "xapi1"
    assert await switched.addresses("eth1") == {"203.0.113.5/24", "2001:db8:5::5/64"}
    await apply(BACKUP)
    await switched.backend.apply(NetworkPlan(bridges=(BridgeSpec("xenbr1", uplink="eth1"),)))
    assert switched.bridge_of("eth1") == "xenbr1"


@pytest.mark.parametrize(
    "bonds",
    [
        (replace(BACKUP, mode="broadcast"),),
        (replace(BACKUP, members=()),),
        (replace(BACKUP, members=("eth1", "eth9")),),
        (BACKUP, replace(BACKUP, name="bond1")),
        (BACKUP, BACKUP),
    ],
)
async def test_bonds_that_cannot_be(switched: SwitchedHost, bonds: tuple[BondSpec, ...]) -> None:
    before = switched.switch.control("show")
    with pytest.raises(NetworkError):
        await switched.backend.apply(NetworkPlan(bonds=bonds, bridges=(OUT,)))
    assert switched.switch.control("show") == before
    assert isinstance(switched.backend, OpenVSwitchNetwork)
