"""Bridges and taps, in a network namespace made for each test."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from pyroute2 import IPRoute  # type: ignore[import-untyped]  # the library has no types

from domzero.host.hypervisor.spec import TapBackend
from domzero.host.network.bridge import BridgeNetwork
from domzero.host.network.cards import TAP_MAC, tap_name
from domzero.host.network.layout import bridge_mac
from domzero.host.network.links import Links
from domzero.host.network.protocol import NetworkBackend, NetworkError
from domzero.host.network.worker import NetworkThread
from tests.host.network.stage import GUEST, Host, card, exchange, frame

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes interfaces")]


async def test_a_bridge_comes_with_the_first_card_and_goes_with_the_last(host: Host) -> None:
    backend: NetworkBackend = host.backend
    assert backend.mode() == "bridge"
    assert await backend.connect(card(1)) == TapBackend("vif1.0")
    assert await backend.connect(card(1)) == TapBackend("vif1.0")
    await backend.connect(card(2, 3, mtu=1400))
    links = await host.links()
    assert set(links) == {"lo", "xapi0", "vif1.0", "vif2.3"}
    assert links["xapi0"].mac == bridge_mac("xapi0")
    assert {links[name].master for name in ("vif1.0", "vif2.3")} == {links["xapi0"].index}
    assert (links["vif2.3"].mtu, links["vif2.3"].mac) == (1400, TAP_MAC)
    await backend.disconnect(1, 0)
    assert await host.names() == {"xapi0", "vif2.3"}
    await backend.disconnect(2, 3)
    await backend.disconnect(2, 3)
    assert await host.names() == set()


async def test_a_card_moves_to_another_bridge(host: Host) -> None:
    await host.backend.connect(card(bridge="xapi0"))
    await host.backend.connect(card(bridge="xapi1"))
    assert await host.names() == {"xapi1", "vif1.0"}
    await host.backend.connect(card(bridge=""))
    assert await host.names() == {"vif1.0"}


async def test_the_host_gives_itself_no_address_towards_guests(host: Host) -> None:
    await host.backend.connect(card())
    await host.kernel("link", "add", ifname="veth0", kind="veth", peer="veth1")

    def without_ipv6(_: Links) -> dict[str, str]:
        names = ("xapi0", "vif1.0", "veth0")
        return {name: Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").read_text().strip() for name in names}

    assert await host.thread.run(without_ipv6) == {"xapi0": "1", "vif1.0": "1", "veth0": "0"}
    links = await host.links()
    assert not {links["xapi0"].index, links["vif1.0"].index} & set(await host.thread.run(Links.addresses))


async def test_taps_belong_to_the_machines_user(host: Host) -> None:
    await host.backend.connect(card())

    def owner(_: Links) -> tuple[int, int]:
        with IPRoute() as route:
            data = route.link("get", ifname="vif1.0")[0].get(("linkinfo", "data"))
            return data.get("tun_owner"), data.get("tun_group")

    assert await host.thread.run(owner) == (12345, 23456)


async def test_frames_cross_the_bridge_and_are_counted_as_the_guest_sees_them(host: Host) -> None:
    await host.backend.connect(card(1))
    await host.backend.connect(card(2))
    first, second = await host.machine("vif1.0"), await host.machine("vif2.0")
    data = frame(GUEST, payload=b"x" * 100)
    assert await exchange(first, second, [data], frame(GUEST)) == [data]
    sender, receiver = await host.backend.counters(1, 0), await host.backend.counters(2, 0)
    assert sender.sent_bytes >= len(data)
    assert receiver.received_bytes >= len(data)
    assert receiver.sent_bytes == 0
    with pytest.raises(NetworkError, match=r"vif3\.0"):
        await host.backend.counters(3, 0)
    os.close(first)
    os.close(second)


async def test_what_is_not_ours_stays(host: Host) -> None:
    await host.kernel("link", "add", ifname="br0", kind="bridge")
    await host.kernel("link", "add", ifname="veth0", kind="veth", peer="veth1")
    await host.kernel("link", "set", index="veth0", master="br0")
    await host.backend.connect(card(bridge="br0"))
    links = await host.links()
    assert links["vif1.0"].master == links["br0"].index
    await host.backend.disconnect(1, 0)
    await host.backend.retain(set())
    assert await host.names() == {"br0", "veth0", "veth1"}
    for bridge in ("veth1", "lo"):
        with pytest.raises(NetworkError, match="no bridge"):
            await host.backend.connect(card(bridge=bridge))
    assert await host.names() == {"br0", "veth0", "veth1"}


async def test_a_name_that_somebody_else_has_is_refused(host: Host) -> None:
    await host.kernel("link", "add", ifname="vif1.0", kind="bridge")
    with pytest.raises(NetworkError, match="not ours"):
        await host.backend.connect(card())
    await host.backend.disconnect(1, 0)
    await host.backend.retain(set())
    assert await host.names() == {"vif1.0"}
    with pytest.raises(NetworkError):
        await host.backend.counters(1, 0)


async def test_our_bridge_stays_while_the_operators_interface_is_on_it(host: Host) -> None:
    await host.backend.connect(card())
    await host.kernel("link", "add", ifname="veth0", kind="veth", peer="veth1")
    await host.kernel("link", "set", index="veth0", master="xapi0")
    await host.backend.disconnect(1, 0)
    assert await host.names() == {"xapi0", "veth0", "veth1"}


@pytest.mark.parametrize("bridge", ["x" * 16, "../x", "a b", "-x", ".", "é", "all", "x\n"])
async def test_impossible_bridges_leave_nothing(host: Host, bridge: str) -> None:
    with pytest.raises(NetworkError):
        await host.backend.connect(card(bridge=bridge))
    assert await host.names() == set()


async def test_a_card_that_fails_half_way_leaves_nothing(host: Host) -> None:
    await host.backend.connect(card(2, bridge="xapi5"))
    with pytest.raises(NetworkError):
        await host.backend.connect(card(1, mtu=10))
    assert await host.names() == {"xapi5", "vif2.0"}


@pytest.mark.parametrize(("domid", "slot"), [(10**11, 0), (10**9, 10), (-1, 0), (1, -1)])
def test_names_fit_the_kernel(domid: int, slot: int) -> None:
    with pytest.raises(NetworkError):
        tap_name(domid, slot)


async def test_a_card_whose_maker_is_cancelled_is_not_left(host: Host) -> None:
    connecting = asyncio.ensure_future(host.backend.connect(card()))
    await asyncio.sleep(0)
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    assert await host.names() == set()


async def test_cards_of_dead_domains_are_removed(host: Host) -> None:
    for domid in (1, 2, 3):
        await host.backend.connect(card(domid, bridge=f"xapi{domid}"))
    await host.backend.retain({2, 9})
    assert await host.names() == {"xapi2", "vif2.0"}


async def test_opening_removes_what_no_machine_uses(host: Host) -> None:
    for domid in (1, 2):
        await host.backend.connect(card(domid, bridge=f"xapi{domid}"))
    descriptor = await host.machine("vif2.0")
    again = host.another()
    await again.open()
    assert await host.names() == {"xapi2", "vif2.0"}
    await again.close()
    os.close(descriptor)
    await again.open()
    assert await host.names() == set()
    await again.close()


async def test_interfaces_tell_the_truth(host: Host, elsewhere: Path) -> None:
    host.resolver.write_text("nameserver 192.0.2.53\n")
    await host.interface("eth7", elsewhere, "02:00:00:00:00:77")
    await host.kernel("link", "set", index="eth7", mtu=1400)
    await host.kernel("addr", "add", index="eth7", address="192.0.2.7", prefixlen=24)
    await host.kernel("route", "add", dst="default", gateway="192.0.2.1")
    await host.backend.connect(card())
    listed = await host.backend.interfaces()
    assert [(found.name, found.mac, found.mtu) for found in listed] == [("eth7", "02:00:00:00:00:77", 1400)]
    assert "192.0.2.7/24" in listed[0].addresses
    assert (listed[0].gateway, listed[0].dns, listed[0].carrier) == ("192.0.2.1", ("192.0.2.53",), False)
    assert (listed[0].speed, listed[0].duplex) == (10000, True)  # what a virtual cable says of itself


async def test_a_namespace_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="cannot be entered"):
        await BridgeNetwork(namespace=tmp_path / "none").open()
    assert os.listdir(tmp_path) == []


async def test_only_the_threads_namespace_is_touched(host: Host) -> None:
    outside = NetworkThread()
    await outside.open()
    before = {link.name for link in await outside.run(Links.all)}
    await host.backend.connect(card(domid=99_999, bridge="xapi99999"))
    assert {link.name for link in await outside.run(Links.all)} == before
    await outside.close()
