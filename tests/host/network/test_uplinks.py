"""Plans carried out on virtual cables in place of physical interfaces, whose other ends are in another namespace."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from domzero.host.network import ethtool
from domzero.host.network.changes import Step
from domzero.host.network.layout import State
from domzero.host.network.links import Links
from domzero.host.network.plan import (
    AddressMode,
    AddressSpec,
    BondSpec,
    BridgeSpec,
    InterfaceSpec,
    Ipv6Mode,
    NetworkPlan,
    Route,
)
from domzero.host.network.planned import PlannedLinks
from domzero.host.network.protocol import NetworkError
from domzero.host.network.states import perform, read_layout
from tests.host.network.stage import GUEST, Host, card, frame, reach

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes interfaces")]

FIRST_MAC, SECOND_MAC = "02:00:00:00:00:71", "02:00:00:00:00:72"
STATIC = AddressSpec(
    AddressMode.STATIC,
    "192.0.2.7/24",
    "192.0.2.1",
    ("192.0.2.53", "2001:db8::53"),
    "example.org",
    routes=(Route("198.51.100.0/24", "192.0.2.3"),),
)
OUT = BridgeSpec("xenbr1", uplink="eth1", addresses=STATIC)
PLAN = NetworkPlan(bridges=(OUT,))


@pytest.fixture
async def site(host: Host, elsewhere: Path) -> Host:
    """A host with two interfaces; the first has addresses and routes that an operator gave it."""
    await host.interface("eth1", elsewhere, FIRST_MAC, "203.0.113.5/24", "2001:db8:5::5/64")
    await host.interface("eth2", elsewhere, SECOND_MAC)
    await host.kernel("route", "add", dst="default", gateway="203.0.113.1", oif="eth1")
    return host


async def layout(host: Host) -> dict[str, State]:
    """What there is; a bridge's speed, which is that of whatever is switched on, left out."""
    found = await host.thread.run(lambda links: read_layout(links, {"eth1", "eth2"}))
    return {name: replace(state, settings={}) if state.ours else state for name, state in found.items()}


async def test_an_uplink_gives_its_place_to_the_bridge_and_gets_back_what_it_had(site: Host) -> None:
    site.resolver.write_text("nameserver 203.0.113.53\n")
    before = await layout(site)
    await site.backend.apply(PLAN)
    links = await site.links()
    assert links["eth1"].master == links["xenbr1"].index
    assert links["xenbr1"].mac == FIRST_MAC
    assert await site.addresses("eth1") == set()
    assert await site.addresses("xenbr1") == {"192.0.2.7/24"}
    assert site.resolver.read_text().splitlines()[1:] == [
        "search example.org",
        "nameserver 192.0.2.53",
        "nameserver 2001:db8::53",
    ]
    routes = await site.command("ip", "route")
    assert "default via 192.0.2.1 dev xenbr1" in routes
    assert "198.51.100.0/24 via 192.0.2.3 dev xenbr1" in routes
    assert (await layout(site))["eth2"] == before["eth2"]
    await site.backend.apply(NetworkPlan())
    assert await layout(site) == before
    assert site.resolver.read_text() == "nameserver 203.0.113.53\n"
    assert "default via 203.0.113.1 dev eth1" in await site.command("ip", "route")
    assert not (site.directory / "network" / "found.json").exists()


async def test_the_same_plan_again_changes_nothing(site: Host) -> None:
    performed: list[Step] = []

    def watch(links: Links, step: Step) -> None:
        performed.append(step)
        perform(links, step)

    planned = PlannedLinks(site.directory / "found.json", watch)
    addresses = replace(STATIC, ipv6_mode=Ipv6Mode.STATIC, ipv6_addresses=("2001:DB8:0::7/64",), ipv6_gateway="fe80::1")
    plan = NetworkPlan(
        interfaces=(InterfaceSpec("eth2", {"mtu": "1400", "tx": "off"}),),
        bridges=(replace(OUT, mtu=1450, addresses=addresses), BridgeSpec("xapi3")),
    )
    await site.thread.run(lambda links: planned.change(links, plan))
    assert performed
    performed.clear()
    await site.thread.run(lambda links: planned.change(links, plan))
    assert performed == []
    assert await site.addresses("xenbr1") == {"192.0.2.7/24", "2001:db8::7/64"}
    links = await site.links()
    assert (links["eth1"].mtu, links["xenbr1"].mtu, links["eth2"].mtu) == (1450, 1450, 1400)
    assert (await site.thread.run(lambda _: ethtool.read("eth2")))["tx"] == "off"
    await site.thread.run(lambda links: planned.change(links, NetworkPlan()))
    links = await site.links()
    assert (links["eth1"].mtu, links["eth2"].mtu) == (1500, 1500)
    assert (await site.thread.run(lambda _: ethtool.read("eth2")))["tx"] == "on"


@pytest.mark.slow
async def test_a_failure_at_any_step_leaves_everything_as_it_was(site: Host) -> None:
    await site.backend.connect(card(bridge="xenbr1"))
    before = await layout(site)
    plan = NetworkPlan(
        interfaces=(InterfaceSpec("eth2", {"mtu": "1400"}),),
        bridges=(
            replace(OUT, mtu=1450),
            BridgeSpec("xapi2", addresses=AddressSpec(AddressMode.STATIC, "198.51.100.1/30")),
        ),
    )
    for failures in range(40):
        countdown = failures

        def fail(links: Links, step: Step) -> None:
            nonlocal countdown
            countdown -= 1
            perform(links, step)  # the worst of failures is one that has done it all the same
            if countdown < 0:
                raise NetworkError("the cable is on fire")

        planned = PlannedLinks(site.directory / "found.json", fail)
        try:
            await site.thread.run(lambda links, planned=planned: planned.change(links, plan))  # type: ignore[misc]
        except NetworkError:
            assert await layout(site) == before
            assert not (site.directory / "found.json").exists()
        else:
            break
    assert 8 < failures < 39
    planned = PlannedLinks(site.directory / "found.json")
    await site.thread.run(lambda links: planned.change(links, NetworkPlan()))
    present = await layout(site)
    assert {name: present[name] for name in ("eth1", "eth2")} == {name: before[name] for name in ("eth1", "eth2")}
    assert present.keys() == before.keys()


@pytest.mark.slow
async def test_a_daemon_killed_at_any_step_is_followed_by_one_that_finishes_or_undoes(site: Host) -> None:
    """A kill is a step after which nothing more happens: neither what should follow, nor the undoing."""

    class KilledError(BaseException):
        pass

    def carry_out(links: Links, plan: NetworkPlan) -> None:
        planned = PlannedLinks(site.directory / "found.json")
        planned.change(links, plan)
        planned.settle(links, plan)

    before = await layout(site)
    for goal, result in ((PLAN, "xenbr1"), (NetworkPlan(), "")):
        for survived in range(40):
            countdown = survived

            def kill(links: Links, step: Step) -> None:
                nonlocal countdown
                if countdown == 0:
                    raise KilledError
                countdown -= 1
                perform(links, step)

            planned = PlannedLinks(site.directory / "found.json", kill)
            with suppress(KilledError):
                await site.thread.run(lambda links, planned=planned: planned.change(links, PLAN))  # type: ignore[misc]
            await site.thread.run(lambda links, goal=goal: carry_out(links, goal))  # type: ignore[misc]
            present = await layout(site)
            assert present["eth1"].master == result
            assert present == before if not result else present["xenbr1"].ipv4 is not None
            if countdown:
                break
            await site.thread.run(lambda links: carry_out(links, NetworkPlan()))
            assert await layout(site) == before
    assert survived > 4


@pytest.mark.slow
async def test_machines_keep_their_bridge_while_its_uplink_changes(site: Host, elsewhere: Path) -> None:
    outside = Host(elsewhere, site.directory / "outside")
    await outside.thread.open()
    for name in ("eth1", "eth2"):
        await outside.kernel("link", "set", index=f"far-{name}", state="up")
    await outside.kernel("link", "add", ifname="there", kind="bridge", br_stp_state=0, br_forward_delay=0)
    await outside.kernel("link", "set", index="there", state="up")
    await outside.kernel("link", "set", index="far-eth2", master="there")
    await outside.backend.open()
    await outside.backend.connect(card(9, bridge="there"))
    await site.backend.connect(card(bridge="xenbr1"))
    machine, far = await site.machine("vif1.0"), await outside.machine("vif9.0")
    try:
        await site.backend.apply(PLAN)
        links = await site.links()
        assert {links[name].master for name in ("vif1.0", "eth1")} == {links["xenbr1"].index}
        await site.backend.apply(NetworkPlan(bridges=(replace(OUT, uplink="eth2"),)))
        links = await site.links()
        assert {links[name].master for name in ("vif1.0", "eth2")} == {links["xenbr1"].index}
        assert links["eth1"].master == 0
        assert await site.addresses("eth1") == {"203.0.113.5/24", "2001:db8:5::5/64"}
        await reach(machine, far, frame(GUEST))
        await site.backend.apply(NetworkPlan())
        assert {"xenbr1", "vif1.0"} < await site.names()
        await site.backend.disconnect(1, 0)
        assert await site.names() == {"eth1", "eth2"}
    finally:
        os.close(machine)
        os.close(far)
        await outside.backend.close()
        await outside.thread.close()


@pytest.mark.slow
async def test_only_what_the_plan_names_is_touched(site: Host) -> None:
    await site.kernel("link", "add", ifname="br0", kind="bridge")
    before = await layout(site)
    for plan, text in (
        (NetworkPlan(bridges=(replace(OUT, uplink="eth9"),)), "no interface eth9"),
        (NetworkPlan(bridges=(replace(OUT, name="br0"),)), "not ours"),
        (NetworkPlan(bridges=(OUT, replace(OUT, name="xenbr2"))), "more than one network"),
        (NetworkPlan(bridges=(OUT, OUT)), "twice"),
        (NetworkPlan(bridges=(replace(OUT, addresses=replace(STATIC, address="192.0.2.300/24")),)), "cannot be used"),
        (NetworkPlan(bridges=(replace(OUT, addresses=AddressSpec(ipv6_mode=Ipv6Mode.DHCP)),)), "IPv6 addresses by"),
        (NetworkPlan(bridges=(replace(OUT, uplink="lo"),)), "no interface lo"),
        (NetworkPlan(bridges=(replace(OUT, mtu=5),)), "xenbr1|eth1"),
    ):
        with pytest.raises(NetworkError, match=text):
            await site.backend.apply(plan)
        assert await layout(site) == before
    await site.backend.apply(NetworkPlan(bridges=(BridgeSpec("br0"), BridgeSpec("xapi5"))))
    assert await layout(site) == before


async def test_an_operators_later_changes_to_a_named_interface_stay(site: Host) -> None:
    await site.backend.apply(NetworkPlan(interfaces=(InterfaceSpec("eth1", {"mtu": "1400"}),)))
    await site.kernel("addr", "add", index="eth1", address="203.0.113.6", prefixlen=24)
    await site.backend.apply(NetworkPlan(interfaces=(InterfaceSpec("eth1", {"mtu": "1300"}),)))
    await site.backend.apply(NetworkPlan())
    assert await site.addresses("eth1") == {"203.0.113.5/24", "203.0.113.6/24", "2001:db8:5::5/64"}
    assert (await site.links())["eth1"].mtu == 1500


async def test_devices_tell_what_there_is(site: Host, elsewhere: Path) -> None:
    await site.backend.apply(replace(PLAN, bridges=(OUT, BridgeSpec("xapi3"))))
    (device,) = await site.backend.devices()
    assert (device.name, device.mac, device.mtu, device.gateway) == ("xenbr1", FIRST_MAC, 1500, "192.0.2.1")
    assert (device.addresses, device.dns) == (("192.0.2.7/24",), STATIC.dns)
    assert not device.carrier
    outside = Host(elsewhere, site.directory / "outside")
    await outside.thread.open()
    await outside.kernel("link", "set", index="far-eth1", state="up")
    await outside.thread.close()
    async with asyncio.timeout(30):
        while not (await site.backend.devices())[0].carrier:  # noqa: ASYNC110 - the kernel looks once a second
            await asyncio.sleep(0.02)
    (device,) = await site.backend.devices()
    assert device.speed == 10000
    found = {interface.name: interface for interface in await site.backend.interfaces()}
    assert found.keys() == {"eth1", "eth2"}
    assert found["eth1"].addresses == ("192.0.2.7/24",)
    assert found["eth1"].carrier


async def test_ipv6_by_advertisement_is_listened_to_only_where_it_is_wanted(site: Host) -> None:
    async def accepts(name: str) -> tuple[str, str]:
        def read(_: Links) -> tuple[str, str]:
            directory = Path("/proc/sys/net/ipv6/conf") / name
            return (directory / "accept_ra").read_text().strip(), (directory / "disable_ipv6").read_text().strip()

        return await site.thread.run(read)

    await site.backend.apply(NetworkPlan(bridges=(replace(OUT, addresses=AddressSpec(ipv6_mode=Ipv6Mode.AUTOCONF)),)))
    assert (await accepts("xenbr1"), await accepts("eth1")) == (("2", "0"), ("0", "1"))
    await site.backend.apply(NetworkPlan(bridges=(replace(OUT, addresses=AddressSpec()),)))
    assert await accepts("xenbr1") == ("0", "1")


async def test_vlans_that_the_kernel_lacks_are_refused_in_a_sentence(site: Host) -> None:
    before = await layout(site)
    try:
        await site.backend.apply(NetworkPlan(bridges=(OUT, BridgeSpec("xapi7", uplink="eth1", tag=7))))
    except NetworkError as error:
        assert "this kernel has no 802.1Q; use the network backend openvswitch" in str(error)  # noqa: PT017
        assert await layout(site) == before
    else:
        links = await site.links()
        assert links["eth1.7"].master == links["xapi7"].index


async def test_bonds_that_the_kernel_lacks_are_refused_in_a_sentence(site: Host) -> None:
    before = await layout(site)
    try:
        await site.backend.apply(NetworkPlan(bonds=(BondSpec("bond0", ("eth1", "eth2"), "lacp"),)))
    except NetworkError as error:
        assert "this kernel has no bonding; use the network backend openvswitch" in str(error)  # noqa: PT017
        assert await layout(site) == before
    else:
        links = await site.links()
        assert links["eth2"].master == links["bond0"].index


async def test_the_way_out_moves_from_one_bridge_to_another(site: Host) -> None:
    """Also to one that is dealt with earlier, where the kernel must not be asked for two default routes."""
    first = BridgeSpec("xenbr0", uplink="eth2", addresses=AddressSpec(AddressMode.STATIC, "198.51.100.9/24"))
    await site.backend.apply(NetworkPlan(bridges=(OUT, first)))
    out = replace(OUT, addresses=AddressSpec(AddressMode.STATIC, "192.0.2.7/24"))
    first = replace(first, addresses=replace(first.addresses, gateway="198.51.100.1"))
    await site.backend.apply(NetworkPlan(bridges=(out, first)))
    routes = await site.command("ip", "route")
    assert "default via 198.51.100.1 dev xenbr0" in routes
    assert "192.0.2.1" not in routes


async def test_an_address_is_exchanged_for_another_of_its_subnet(site: Host) -> None:
    await site.backend.apply(PLAN)
    other = replace(OUT, addresses=replace(STATIC, address="192.0.2.99/24"))
    await site.backend.apply(NetworkPlan(bridges=(other,)))
    assert await site.addresses("xenbr1") == {"192.0.2.99/24"}
    assert "default via 192.0.2.1 dev xenbr1" in await site.command("ip", "route")
