"""Networks of Open vSwitch, with virtual cables in place of physical interfaces."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from domzero.host.hypervisor.spec import TapBackend
from domzero.host.network.layout import State
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
    reach,
    received,
    send,
)
from tests.host.network.switched import SwitchedHost, cable_end, expect, in_vlan, switched_host

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="makes interfaces"),
    pytest.mark.skipif(shutil.which("ovs-vswitchd") is None, reason="needs Open vSwitch"),
]

OUTSIDE = "02:00:00:00:00:99"
OTHER = "02:00:00:00:00:02"
FIRST_MAC, SECOND_MAC = "02:00:00:00:00:71", "02:00:00:00:00:72"
STATIC = AddressSpec(AddressMode.STATIC, "192.0.2.7/24", "192.0.2.1", ("192.0.2.53",), "example.org")
OUT = BridgeSpec("xenbr1", uplink="eth1")
SEVEN, EIGHT = BridgeSpec("xapi7", uplink="eth1", tag=7), BridgeSpec("xapi8", uplink="eth1", tag=8)


@pytest.fixture
async def site(namespace: Path, elsewhere: Path, tmp_path: Path) -> AsyncIterator[SwitchedHost]:
    """A host with two interfaces; the first has an address and a route that an operator gave it."""
    async with switched_host(namespace, tmp_path) as host:
        await host.interface("eth1", elsewhere, FIRST_MAC, "203.0.113.5/24", "2001:db8:5::5/64")
        await host.interface("eth2", elsewhere, SECOND_MAC)
        await host.kernel("route", "add", dst="default", gateway="203.0.113.1", oif="eth1")
        yield host


@pytest.fixture
async def wire(site: SwitchedHost, elsewhere: Path, tmp_path: Path) -> AsyncIterator[tuple[int, int]]:
    """The other ends of both cables, as machines' taps are: frames come and go whole, with a header before each."""
    outside = Host(elsewhere, tmp_path / "elsewhere")
    await outside.thread.open()
    ends = [await cable_end(outside, f"far-eth{number}") for number in (1, 2)]
    yield ends[0], ends[1]
    for end in ends:
        os.close(end)
    await outside.thread.close()


async def layout(host: Host) -> dict[str, State]:
    return await host.thread.run(lambda links: read_layout(links, {"eth1", "eth2"}))


async def test_cards_of_one_network_reach_each_other(site: SwitchedHost) -> None:
    backend = await site.backend.connect(card(1))
    assert backend == TapBackend("vif1.0", offloads=False)
    await site.backend.connect(card(2, mac=OTHER))
    await site.backend.connect(card(3, bridge="xapi1"))
    one, two, three = [await site.machine(f"vif{domid}.0") for domid in (1, 2, 3)]
    assert await exchange(one, two, [frame(GUEST, OTHER)], frame(GUEST)) == [frame(GUEST, OTHER)]
    assert received(three) == []
    counted = await site.backend.counters(2, 0)
    assert counted.received_bytes >= 120
    for descriptor in (one, two, three):
        os.close(descriptor)
    await site.backend.disconnect(3, 0)
    await site.backend.disconnect(3, 0)
    await site.backend.connect(card(1, bridge="xapi9"))
    assert site.bridge_of("vif1.0") == "xapi9"
    await site.backend.connect(card(1, bridge=""))
    assert set(site.switch.control("list-br").split()) == {"xapi0"}
    assert "vif1.0" in await site.names()
    await site.backend.disconnect(1, 0)
    assert "vif1.0" not in await site.names()


async def test_the_same_plan_again_changes_nothing(site: SwitchedHost) -> None:
    plan = NetworkPlan(bridges=(replace(OUT, addresses=STATIC, mtu=1450), SEVEN, BridgeSpec("xapi3")))
    await site.backend.apply(plan)
    before = site.switch.control("--columns=next_cfg", "list", "Open_vSwitch"), await layout(site)
    await site.backend.apply(plan)
    again = site.another()
    await again.open()
    await again.apply(plan)
    await again.close()
    assert (site.switch.control("--columns=next_cfg", "list", "Open_vSwitch"), await layout(site)) == before
    assert await site.addresses("xenbr1") == {"192.0.2.7/24"}
    links = await site.links()
    assert (links["xenbr1"].mtu, links["xapi7"].mtu, links["eth1"].mtu) == (1450, 1500, 1500)
    assert links["xenbr1"].mac == links["xapi7"].mac == FIRST_MAC


async def test_an_uplink_gives_its_place_to_the_bridge_and_gets_back_what_it_had(site: SwitchedHost) -> None:
    before = await layout(site)
    await site.backend.apply(NetworkPlan(bridges=(replace(OUT, addresses=STATIC),)))
    assert (await site.addresses("eth1"), await site.addresses("xenbr1")) == (set(), {"192.0.2.7/24"})
    assert "default via 192.0.2.1 dev xenbr1" in await site.command("ip", "route")
    assert "nameserver 192.0.2.53" in site.resolver.read_text()
    found = {interface.name: interface for interface in await site.backend.interfaces()}
    assert found.keys() == {"eth1", "eth2"}
    assert (found["eth1"].addresses, found["eth1"].gateway) == (("192.0.2.7/24",), "192.0.2.1")
    (device,) = await site.backend.devices()
    assert (device.name, device.addresses, device.carrier) == ("xenbr1", ("192.0.2.7/24",), False)
    await site.backend.apply(NetworkPlan())
    assert await layout(site) == before
    assert "default via 203.0.113.1 dev eth1" in await site.command("ip", "route")


async def test_a_plan_that_fails_leaves_what_was_there(site: SwitchedHost) -> None:
    good = NetworkPlan(bridges=(replace(OUT, addresses=STATIC), SEVEN))
    await site.backend.apply(good)
    await site.backend.connect(card(1, bridge="xapi7"))
    before = await layout(site), site.switch.control("show")
    await site.kernel("link", "add", ifname="taken", kind="bridge")
    for wrong in (
        BridgeSpec("xapi9", uplink="eth9"),
        BridgeSpec("xapi9", uplink="eth1", tag=7),
        BridgeSpec("xapi9", uplink="eth1"),
        BridgeSpec("taken", uplink="eth2"),
        BridgeSpec("xapi9", uplink="eth2", tag=4095),
        BridgeSpec("xapi9", addresses=replace(STATIC, gateway="198.51.100.1")),
    ):
        with pytest.raises(NetworkError):
            await site.backend.apply(replace(good, bridges=(*good.bridges, wrong)))
        present = await layout(site)
        del present["taken"]
        assert (present, site.switch.control("show")) == before, wrong
    await site.kernel("link", "del", index="taken")


async def test_what_others_made_stays_theirs(site: SwitchedHost) -> None:
    site.switch.control("add-br", "foreign", "--", "set", "Bridge", "foreign", "datapath_type=netdev")
    for name in ("foreign", "eth1", "--help"):
        with pytest.raises(NetworkError):
            await site.backend.connect(card(1, bridge=name))
    with pytest.raises(NetworkError):
        await site.backend.apply(NetworkPlan(bridges=(BridgeSpec("foreign", uplink="eth1"),)))
    assert "vif1.0" not in await site.names()
    await site.backend.apply(NetworkPlan(bridges=(OUT,)))
    await site.backend.apply(NetworkPlan())
    assert site.switch.control("list-br").split() == ["foreign"]


async def test_vlans_leave_and_come_with_their_tags(site: SwitchedHost, wire: tuple[int, int]) -> None:
    await site.backend.apply(NetworkPlan(bridges=(OUT, SEVEN, EIGHT)))
    assert "trunk" not in site.switch.control("list-br")
    for domid, bridge in ((1, "xenbr1"), (2, "xapi7"), (3, "xapi8")):
        await site.backend.connect(card(domid, bridge=bridge, mac=f"02:00:00:00:00:0{domid}"))
    plain, seven, eight = [await site.machine(f"vif{domid}.0") for domid in (1, 2, 3)]
    far = wire[0]
    try:
        await reach(plain, far, frame("02:00:00:00:00:01"))
        await reach(far, plain, frame(OUTSIDE))
        for near, tag, own in ((seven, 7, "02:00:00:00:00:02"), (eight, 8, "02:00:00:00:00:03")):
            received(far)
            send(near, frame(own))
            await expect(far, in_vlan(tag, frame(own)))
            send(far, in_vlan(tag, frame(OUTSIDE)))
            await expect(near, frame(OUTSIDE))
        assert received(seven) == []
        assert frame("02:00:00:00:00:03") not in received(plain)
    finally:
        for descriptor in (plain, seven, eight):
            os.close(descriptor)


async def test_networks_change_under_cards(site: SwitchedHost, wire: tuple[int, int]) -> None:
    """An uplink gets and loses its untagged network, a VLAN moves to another uplink: the cards go along, locked."""
    address = "192.0.2.1"
    await site.backend.connect(card(1, bridge="xapi7", rules=CardRules(LockingMode.LOCKED, (address,))))
    near = await site.machine("vif1.0")
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
            await site.backend.apply(NetworkPlan(bridges=bridges))
            assert site.bridge_of("vif1.0") == "xapi7"
            for descriptor in wire:
                received(descriptor)
            send(near, foreign)
            send(near, own)
            arrived = await expect(wire[end], own if bridges[0].tag < 0 and len(bridges) == 1 else in_vlan(7, own))
            assert not [data for data in arrived if "c0000202" in data.hex()]
            assert not [data for data in received(wire[1 - end]) if "c0000201" in data.hex()]
        await site.backend.apply(NetworkPlan())
        await site.backend.connect(card(2, bridge="xapi7", mac=OTHER))
        other = await site.machine("vif2.0")
        await reach(near, other, own)
        os.close(other)
    finally:
        os.close(near)
