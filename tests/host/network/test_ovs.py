"""Networks of Open vSwitch, with virtual cables in place of physical interfaces."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from domzero.host.hypervisor.spec import TapBackend
from domzero.host.network.layout import State
from domzero.host.network.openvswitch.backend import KERNEL
from domzero.host.network.plan import AddressMode, AddressSpec, BridgeSpec, CardRules, LockingMode, NetworkPlan
from domzero.host.network.protocol import NetworkError
from domzero.host.network.states import read_layout
from tests.host.network.packets import ARP, arp
from tests.host.network.stage import (
    GUEST,
    Host,
    card,
    exchange,
    frame,
    passes,
    reach,
    received,
    send,
)
from tests.host.network.switched import FIRST_MAC, NEEDS, SwitchedHost, in_vlan

pytestmark = NEEDS

OUTSIDE = "02:00:00:00:00:99"
OTHER = "02:00:00:00:00:02"
STATIC = AddressSpec(AddressMode.STATIC, "192.0.2.7/24", "192.0.2.1", ("192.0.2.53",), "example.org")
ELSEWHERE = AddressSpec(AddressMode.STATIC, "198.51.100.1/24")
OUT = BridgeSpec("xenbr1", uplink="eth1")
SEVEN, EIGHT = BridgeSpec("xapi7", uplink="eth1", tag=7), BridgeSpec("xapi8", uplink="eth1", tag=8)


async def layout(host: Host) -> dict[str, State]:
    return await host.thread.run(lambda links: read_layout(links, {"eth1", "eth2"}))


async def test_cards_of_one_network_reach_each_other(switched: SwitchedHost) -> None:
    backend = await switched.backend.connect(card(1))
    assert backend == TapBackend("vif1.0", offloads=switched.datapath == KERNEL)
    await switched.backend.connect(card(2, mac=OTHER))
    await switched.backend.connect(card(3, bridge="xapi1"))
    one, two, three = [await switched.machine(f"vif{domid}.0") for domid in (1, 2, 3)]
    assert await exchange(one, two, [frame(GUEST, OTHER)], frame(GUEST)) == [frame(GUEST, OTHER)]
    assert received(three) == []
    counted = await switched.backend.counters(2, 0)
    assert counted.received_bytes >= 120
    for descriptor in (one, two, three):
        os.close(descriptor)
    await switched.backend.disconnect(3, 0)
    await switched.backend.disconnect(3, 0)
    await switched.backend.connect(card(1, bridge="xapi9"))
    assert switched.bridge_of("vif1.0") == "xapi9"
    await switched.backend.connect(card(1, bridge=""))
    assert set(switched.switch.control("list-br").split()) == {"xapi0"}
    assert "vif1.0" in await switched.names()
    await switched.backend.disconnect(1, 0)
    assert "vif1.0" not in await switched.names()


async def test_the_same_plan_again_changes_nothing(switched: SwitchedHost) -> None:
    plan = NetworkPlan(bridges=(replace(OUT, addresses=STATIC, mtu=1450), SEVEN, BridgeSpec("xapi3")))
    await switched.backend.apply(plan)
    before = switched.switch.control("--columns=next_cfg", "list", "Open_vSwitch"), await layout(switched)
    await switched.backend.apply(plan)
    again = switched.another()
    await again.open()
    await again.apply(plan)
    await again.close()
    assert (switched.switch.control("--columns=next_cfg", "list", "Open_vSwitch"), await layout(switched)) == before
    assert await switched.addresses("xenbr1") == {"192.0.2.7/24"}
    links = await switched.links()
    assert (links["xenbr1"].mtu, links["xapi7"].mtu, links["eth1"].mtu) == (1450, 1500, 1500)
    assert links["xenbr1"].mac == links["xapi7"].mac == FIRST_MAC


async def test_an_uplink_gives_its_place_to_the_bridge_and_gets_back_what_it_had(switched: SwitchedHost) -> None:
    before = await layout(switched)
    await switched.backend.apply(NetworkPlan(bridges=(replace(OUT, addresses=STATIC),)))
    assert (await switched.addresses("eth1"), await switched.addresses("xenbr1")) == (set(), {"192.0.2.7/24"})
    assert "default via 192.0.2.1 dev xenbr1" in await switched.command("ip", "route")
    assert "nameserver 192.0.2.53" in switched.resolver.read_text()
    found = {interface.name: interface for interface in await switched.backend.interfaces()}
    assert found.keys() == {"eth1", "eth2"}
    assert (found["eth1"].addresses, found["eth1"].gateway) == (("192.0.2.7/24",), "192.0.2.1")
    (device,) = await switched.backend.devices()
    assert (device.name, device.addresses, device.carrier) == ("xenbr1", ("192.0.2.7/24",), False)
    await switched.backend.apply(NetworkPlan())
    assert await layout(switched) == before
    assert "default via 203.0.113.1 dev eth1" in await switched.command("ip", "route")


async def test_an_uplink_of_vlans_alone_keeps_its_addresses_within_reach(switched: SwitchedHost) -> None:
    before = await layout(switched)
    await switched.backend.apply(NetworkPlan(bridges=(SEVEN, replace(EIGHT, mtu=1600))))
    trunk = switched.switch.control("br-to-parent", "xapi7").strip()
    assert await switched.addresses("eth1") == set()
    assert await switched.addresses(trunk) == {"203.0.113.5/24", "2001:db8:5::5/64"}
    assert f"default via 203.0.113.1 dev {trunk}" in await switched.command("ip", "route")
    found = {interface.name: interface for interface in await switched.backend.interfaces()}
    assert found["eth1"].addresses[:1] == ("203.0.113.5/24",)
    assert found["eth1"].gateway == "203.0.113.1"
    assert {device.name for device in await switched.backend.devices()} == {"xapi7", "xapi8"}
    links = await switched.links()
    assert [links[name].mtu for name in ("eth1", trunk, "xapi7", "xapi8")] == [1600, 1600, 1500, 1600]
    await switched.backend.apply(NetworkPlan(bridges=(OUT, SEVEN)))
    assert await switched.addresses("xenbr1") == set()
    await switched.backend.apply(NetworkPlan())
    assert await layout(switched) == before


async def test_a_plan_that_fails_leaves_what_was_there(switched: SwitchedHost) -> None:
    good = NetworkPlan(bridges=(replace(OUT, addresses=STATIC), SEVEN))
    await switched.backend.apply(good)
    await switched.backend.connect(card(1, bridge="xapi7"))
    before = await layout(switched), switched.switch.control("show")
    await switched.kernel("link", "add", ifname="taken", kind="bridge")
    for wrong in (
        BridgeSpec("xapi9", uplink="eth9"),
        BridgeSpec("xapi9", uplink="lo"),
        BridgeSpec("xapi9", uplink="eth1", tag=7),
        BridgeSpec("xapi9", uplink="eth1"),
        BridgeSpec("taken", uplink="eth2"),
        BridgeSpec("xapi9", uplink="eth2", tag=4095),
        BridgeSpec("xapi9", addresses=replace(STATIC, gateway="198.51.100.1")),
    ):
        with pytest.raises(NetworkError):
            await switched.backend.apply(replace(good, bridges=(*good.bridges, wrong)))
        present = await layout(switched)
        del present["taken"]
        assert (present, switched.switch.control("show")) == before, wrong
    await switched.kernel("link", "del", index="taken")


async def test_what_others_made_stays_theirs(switched: SwitchedHost) -> None:
    switched.switch.control("add-br", "foreign", "--", "set", "Bridge", "foreign", "datapath_type=netdev")
    for name in ("foreign", "eth1", "--help"):
        with pytest.raises(NetworkError):
            await switched.backend.connect(card(1, bridge=name))
    with pytest.raises(NetworkError):
        await switched.backend.apply(NetworkPlan(bridges=(BridgeSpec("foreign", uplink="eth1"),)))
    assert "vif1.0" not in await switched.names()
    await switched.backend.apply(NetworkPlan(bridges=(OUT,)))
    await switched.backend.apply(NetworkPlan())
    assert switched.switch.control("list-br").split() == ["foreign"]


def outside(tag: int) -> bytes:
    """What is sent from outside to one VLAN and no other."""
    return frame(OUTSIDE, payload=b"to VLAN %d" % tag)


async def test_vlans_leave_and_come_with_their_tags(switched: SwitchedHost, wires: tuple[int, int]) -> None:
    await switched.backend.apply(NetworkPlan(bridges=(OUT, SEVEN, EIGHT)))
    assert "trunk" not in switched.switch.control("list-br")
    for domid, bridge in ((1, "xenbr1"), (2, "xapi7"), (3, "xapi8")):
        await switched.backend.connect(card(domid, bridge=bridge, mac=f"02:00:00:00:00:0{domid}"))
    plain, seven, eight = [await switched.machine(f"vif{domid}.0") for domid in (1, 2, 3)]
    far = wires[0]
    try:
        await reach(plain, far, frame("02:00:00:00:00:01"))
        await reach(far, plain, frame(OUTSIDE))
        for near, tag, own in ((seven, 7, "02:00:00:00:00:02"), (eight, 8, "02:00:00:00:00:03")):
            received(far)
            await passes(near, frame(own), far, in_vlan(tag, frame(own)))
            await passes(far, in_vlan(tag, outside(tag)), near, outside(tag))
        # Its own may have been sent more than once before the first arrived.
        assert set(received(seven)) <= {outside(7)}
        assert frame("02:00:00:00:00:03") not in received(plain)
    finally:
        for descriptor in (plain, seven, eight):
            os.close(descriptor)


async def test_networks_change_under_cards(switched: SwitchedHost, wires: tuple[int, int]) -> None:
    """An uplink gets and loses its untagged network, a VLAN moves to another uplink: the cards go along, locked."""
    address = "192.0.2.1"
    await switched.backend.connect(card(1, bridge="xapi7", rules=CardRules(LockingMode.LOCKED, (address,))))
    near = await switched.machine("vif1.0")
    own, foreign = (frame(GUEST, payload=arp(GUEST, source), kind=ARP) for source in (address, "192.0.2.2"))
    try:
        for bridges, end in (
            ((SEVEN,), 0),
            ((OUT, SEVEN), 0),
            ((SEVEN, replace(EIGHT, uplink="eth2")), 0),
            ((replace(SEVEN, uplink="eth2"), replace(EIGHT, uplink="eth2")), 1),
            ((BridgeSpec("xapi7", uplink="eth2"),), 1),
            ((OUT, SEVEN), 0),
        ):
            await switched.backend.apply(NetworkPlan(bridges=bridges))
            assert switched.bridge_of("vif1.0") == "xapi7"
            for descriptor in wires:
                received(descriptor)
            send(near, foreign)
            tagged = any(bridge.name == "xapi7" and bridge.tag == 7 for bridge in bridges)
            arrived = await passes(near, own, wires[end], in_vlan(7, own) if tagged else own)
            assert not [data for data in arrived if "c0000202" in data.hex()]
            assert not [data for data in received(wires[1 - end]) if "c0000201" in data.hex()]
        await switched.backend.apply(NetworkPlan())
        await switched.backend.connect(card(2, bridge="xapi7", mac=OTHER))
        other = await switched.machine("vif2.0")
        await reach(near, other, own)
        os.close(other)
    finally:
        os.close(near)


async def test_what_linux_bridges_had_is_taken_over(switched: SwitchedHost) -> None:
    before = await layout(switched)
    plan = NetworkPlan(bridges=(replace(OUT, addresses=STATIC), BridgeSpec("xapi3", addresses=ELSEWHERE)))
    linux = Host.another(switched)
    await linux.open()
    await linux.apply(plan)
    await linux.close()
    await switched.backend.close()
    switched.backend = switched.another()
    await switched.backend.open()
    assert await layout(switched) == before
    await switched.backend.apply(plan)
    assert await switched.addresses("xenbr1") == {"192.0.2.7/24"}
    assert switched.bridge_of("eth1") == "xenbr1"
    await switched.backend.apply(NetworkPlan())
    assert await layout(switched) == before
