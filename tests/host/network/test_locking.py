"""Machines that forge addresses, on taps whose other end the tests hold themselves: what arrives at a neighbour."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from domzero.host.network.locking import link_local
from domzero.host.network.plan import CardRules, LockingMode
from domzero.host.network.protocol import NetworkError
from tests.host.network.packets import (
    ARP,
    ICMPV6,
    IPV4,
    IPV6,
    UDP,
    VLAN,
    arp,
    fragmented,
    icmpv6,
    ipv4,
    ipv6,
    neighbour,
    tagged,
    udp,
)
from tests.host.network.stage import EXPERIMENT, GUEST, Host, card, exchange, frame, reach, received, send

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes interfaces")]

OTHER = "02:00:00:00:00:02"
THIRD = "02:00:00:00:00:03"
OWN, OWN6, FOREIGN, FOREIGN6 = "192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2"
LOCAL = link_local(GUEST)
LOCKED = CardRules(LockingMode.LOCKED, (OWN, "192.0.2.11"), (OWN6,))
MARKER = frame(GUEST, payload=arp(GUEST, OWN, "192.0.2.123"), kind=ARP)

PASSES = {
    "arp": frame(GUEST, payload=arp(GUEST, OWN), kind=ARP),
    "arp from another allowed address": frame(GUEST, payload=arp(GUEST, "192.0.2.11"), kind=ARP),
    "arp probe for an allowed address": frame(GUEST, payload=arp(GUEST, "0.0.0.0", OWN), kind=ARP),
    "ipv4": frame(GUEST, payload=ipv4(OWN), kind=IPV4),
    "dhcp request": frame(GUEST, payload=ipv4("0.0.0.0", "255.255.255.255", udp(68, 67), UDP), kind=IPV4),
    "ipv6": frame(GUEST, payload=ipv6(OWN6), kind=IPV6),
    "neighbour solicitation": frame(GUEST, payload=neighbour(OWN6, 135, FOREIGN6), kind=IPV6),
    "neighbour solicitation, link-local": frame(GUEST, payload=neighbour(LOCAL, 135, FOREIGN6), kind=IPV6),
    "duplicate address detection": frame(GUEST, payload=neighbour("::", 135, OWN6), kind=IPV6),
    "neighbour advertisement": frame(GUEST, payload=neighbour(OWN6, 136, OWN6), kind=IPV6),
    "router solicitation": frame(GUEST, payload=icmpv6(LOCAL, 133, bytes(4)), kind=IPV6),
    "multicast report": frame(GUEST, payload=icmpv6(LOCAL, 143, bytes(8)), kind=IPV6),
}
FORGED = {
    "mac": frame(OTHER, payload=ipv4(OWN), kind=IPV4),
    "type": frame(GUEST, kind=EXPERIMENT),
    "ipv4": frame(GUEST, payload=ipv4(FOREIGN), kind=IPV4),
    "arp address": frame(GUEST, payload=arp(GUEST, FOREIGN), kind=ARP),
    "arp answer": frame(GUEST, payload=arp(GUEST, FOREIGN, operation=2), kind=ARP),
    "arp mac": frame(GUEST, payload=arp(OTHER, OWN), kind=ARP),
    "arp probe for a foreign address": frame(GUEST, payload=arp(GUEST, "0.0.0.0", FOREIGN), kind=ARP),
    "arp of another length": frame(GUEST, payload=arp(GUEST, OWN, hardware_length=8), kind=ARP),
    "dhcp answer": frame(GUEST, payload=ipv4("0.0.0.0", "255.255.255.255", udp(67, 68), UDP), kind=IPV4),
    "no address, no dhcp": frame(GUEST, payload=ipv4("0.0.0.0"), kind=IPV4),
    "ipv6": frame(GUEST, payload=ipv6(FOREIGN6), kind=IPV6),
    "ipv6 link-local, not of the mac": frame(GUEST, payload=ipv6("fe80::1"), kind=IPV6),
    "ipv6 link-local data": frame(GUEST, payload=ipv6(LOCAL), kind=IPV6),
    "neighbour advertisement": frame(GUEST, payload=neighbour(OWN6, 136, FOREIGN6), kind=IPV6),
    "neighbour advertisement, source": frame(GUEST, payload=neighbour(FOREIGN6, 136, FOREIGN6), kind=IPV6),
    "duplicate address detection": frame(GUEST, payload=neighbour("::", 135, FOREIGN6), kind=IPV6),
    "router advertisement": frame(GUEST, payload=icmpv6(OWN6, 134, bytes(12)), kind=IPV6),
    "router advertisement, link-local": frame(GUEST, payload=icmpv6(LOCAL, 134, bytes(12)), kind=IPV6),
    "redirect": frame(GUEST, payload=icmpv6(OWN6, 137, bytes(36)), kind=IPV6),
    "split icmp": frame(GUEST, payload=fragmented(OWN6, ICMPV6, bytes(16)), kind=IPV6),
    "tagged ipv4": frame(GUEST, payload=tagged(5, IPV4, ipv4(OWN)), kind=VLAN),
    "tagged arp": frame(GUEST, payload=tagged(0, ARP, arp(GUEST, OWN)), kind=VLAN),
}


@pytest.fixture
async def machines(host: Host) -> AsyncIterator[tuple[int, int]]:
    """The machine under suspicion, and its neighbour."""
    await host.backend.connect(card(1, rules=LOCKED))
    await host.backend.connect(card(2, mac=OTHER))
    first, second = await host.machine("vif1.0"), await host.machine("vif2.0")
    yield first, second
    os.close(first)
    os.close(second)


async def test_a_locked_card_sends_what_is_its_own(machines: tuple[int, int]) -> None:
    arrived = await exchange(*machines, list(PASSES.values()), MARKER)
    assert [name for name, data in PASSES.items() if data not in arrived] == []


async def test_a_locked_card_sends_nothing_forged(host: Host, machines: tuple[int, int]) -> None:
    arrived = await exchange(*machines, list(FORGED.values()), MARKER)
    assert [name for name, data in FORGED.items() if data in arrived] == []
    assert arrived == []
    await host.backend.configure(card(1))
    arrived = await exchange(*machines, list(FORGED.values()), MARKER)
    assert len(arrived) == len(FORGED), "the same frames pass an open card, so that the test could have failed"


@pytest.mark.parametrize(
    "rules", [CardRules(LockingMode.DISABLED, (OWN,), (OWN6,)), CardRules(LockingMode.LOCKED)], ids=["disabled", "none"]
)
async def test_nothing_passes(host: Host, machines: tuple[int, int], rules: CardRules) -> None:
    first, second = machines
    await exchange(first, second, [], MARKER)
    await host.backend.connect(card(3, mac=THIRD))
    third = await host.machine("vif3.0")
    try:
        await host.backend.configure(card(1, rules=rules))
        received(first)
        for data in PASSES.values():
            send(first, data)
        # The neighbours still reach each other; the suspect neither hears them nor is heard.
        arrived = await reach(third, second, frame(THIRD))
        # The host itself may speak on the bridge, too.
        assert set(arrived).isdisjoint(PASSES.values())
        assert received(first) == []
        await host.backend.configure(card(1, rules=LOCKED))
        assert await exchange(first, second, [], MARKER) == []
        await reach(second, first, frame(OTHER))
    finally:
        os.close(third)


async def test_rules_are_there_before_the_card_is_on_its_bridge_and_go_with_it(host: Host) -> None:
    await host.backend.connect(card(1, rules=LOCKED))
    await host.backend.connect(card(2, rules=replace(LOCKED, locking=LockingMode.DISABLED)))
    assert "card-vif1.0" in await host.command("nft", "list", "ruleset")
    await host.backend.disconnect(1, 0)
    rules = await host.command("nft", "list", "ruleset")
    assert "vif1.0" not in rules
    assert "vif2.0" in rules
    again = host.another()
    await again.open()  # nobody has vif2.0 open
    assert "vif2.0" not in await host.command("nft", "list", "ruleset")
    await again.close()


async def test_a_card_whose_rules_are_refused_is_not_made(host: Host) -> None:
    for rules, mac in (
        (CardRules(LockingMode.LOCKED, ("192.0.2.1/24",)), GUEST),
        (CardRules(LockingMode.LOCKED, (OWN,), ('::1", "x',)), GUEST),
        (LOCKED, "nonsense"),
    ):
        with pytest.raises(NetworkError):
            await host.backend.connect(card(1, mac=mac, rules=rules))
    assert await host.names() == set()


async def test_a_locked_machine_cannot_draw_another_ones_traffic_to_itself(
    host: Host, machines: tuple[int, int]
) -> None:
    """Frames to the bridge group address are never forwarded, but a bridge learns from them where a MAC is."""
    first, second = machines
    await exchange(first, second, [], MARKER)
    await host.backend.connect(card(3, mac=THIRD))
    third = await host.machine("vif3.0")
    try:
        await reach(second, third, frame(OTHER))
        received(first)
        for _ in range(3):
            send(first, frame(OTHER, "01:80:c2:00:00:0e", kind=0x88CC))
        await reach(third, second, frame(THIRD, OTHER))
        assert received(first) == []
        # And the other way round: a machine that may forge does not get what is for the locked one.
        await exchange(first, second, [], MARKER)
        send(second, frame(GUEST))
        received(second)
        await reach(third, first, frame(THIRD, GUEST))
        assert frame(THIRD, GUEST) not in received(second)
    finally:
        os.close(third)


async def test_what_a_bridge_learned_before_a_card_was_locked_is_forgotten(host: Host) -> None:
    await host.backend.connect(card(1))
    for domid, mac in ((2, OTHER), (3, THIRD)):
        await host.backend.connect(card(domid, mac=mac))
    first, second, third = [await host.machine(f"vif{domid}.0") for domid in (1, 2, 3)]
    try:
        await reach(second, third, frame(OTHER))
        await reach(first, third, frame(OTHER, payload=b"forged"))
        received(first)
        await reach(third, first, frame(THIRD, OTHER))  # drawn to the forger
        await host.backend.configure(card(1, rules=LOCKED))
        await reach(third, second, frame(THIRD, OTHER))
    finally:
        for descriptor in (first, second, third):
            os.close(descriptor)
