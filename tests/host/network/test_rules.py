"""What can change about a card while its machine runs: rate, offloads, what it sees; and that it is read back."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from domzero.host.network import ethtool
from domzero.host.network.links import Links
from domzero.host.network.plan import CardRules, LockingMode
from domzero.host.network.protocol import NetworkError
from tests.host.network.stage import GUEST, Host, card, comes_to, exchange, frame, reach, received, send

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="makes interfaces")]

OTHER, THIRD = "02:00:00:00:00:02", "02:00:00:00:00:03"
RATE = 256
"""Kilobytes a second."""


async def flood(sender: int, receiver: int, seconds: float) -> float:
    """Bytes a second that arrive while a machine sends as fast as it can; those of a full bucket left out."""
    data = frame(GUEST, OTHER, bytes(1400))
    begin, arrived, counting, ended = time.monotonic(), 0, 0.0, 0.0
    while not counting or ended - counting < seconds:
        for _ in range(20):
            send(sender, data)
        got = sum(len(one) for one in received(receiver))
        now = time.monotonic()
        if counting:
            arrived += got
            ended = now
        elif now - begin > seconds:
            counting = now
        await asyncio.sleep(0.002)
    return arrived / (ended - counting)


@pytest.mark.slow
async def test_what_a_machine_sends_is_limited_and_the_limit_changes_at_once(host: Host) -> None:
    await host.backend.connect(card(1, rules=CardRules(kilobytes_per_second=RATE)))
    await host.backend.connect(card(2, mac=OTHER))
    first, second = await host.machine("vif1.0"), await host.machine("vif2.0")
    try:
        await exchange(first, second, [], frame(GUEST))
        limit = RATE * 1024
        await comes_to(lambda: flood(first, second, 0.5), 0.7 * limit, 1.2 * limit)
        await host.backend.configure(card(1, rules=CardRules(kilobytes_per_second=4 * RATE)))
        await comes_to(lambda: flood(first, second, 0.5), 0.7 * 4 * limit, 1.2 * 4 * limit)
        await host.backend.configure(card(1))
        await comes_to(lambda: flood(first, second, 0.2), 8 * limit)
        assert await host.names() == {"xapi0", "vif1.0", "vif2.0"}
    finally:
        os.close(first)
        os.close(second)


async def test_a_limited_card_is_locked_all_the_same_and_leaves_nothing(host: Host) -> None:
    rules = CardRules(LockingMode.LOCKED, ("192.0.2.1",), kilobytes_per_second=RATE)
    await host.backend.connect(card(1, rules=rules))
    await host.backend.connect(card(1, rules=rules))
    await host.backend.connect(card(2, mac=OTHER))
    assert "ifb1.0" in await host.names()
    first, second = await host.machine("vif1.0"), await host.machine("vif2.0")
    try:
        await host.backend.configure(card(1, rules=CardRules(kilobytes_per_second=RATE)))
        await exchange(first, second, [], frame(GUEST))
        await host.backend.configure(card(1, rules=rules))
        for _ in range(5):
            send(first, frame(GUEST, OTHER))
        await host.backend.connect(card(3, mac=THIRD))
        third = await host.machine("vif3.0")
        arrived = await reach(third, second, frame(THIRD))
        os.close(third)
        assert frame(GUEST, OTHER) not in arrived
    finally:
        os.close(first)
        os.close(second)
    await host.backend.disconnect(1, 0)
    assert await host.names() == {"xapi0", "vif2.0", "vif3.0"}


async def test_offloads_are_set_and_read_back(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    await host.backend.connect(card(rules=CardRules(settings={"gso": "off", "gro": "false", "speed": "1000"})))
    found = await host.thread.run(lambda _: ethtool.read("vif1.0"))
    assert (found["gso"], found["gro"], found["speed"]) == ("off", "off", "1000")
    settings = {"gso": "on", "duplex": "half", "lro": "on", "tso": "perhaps", "speed": "-1"}
    await host.backend.configure(card(rules=CardRules(settings=settings), mtu=1400))
    found = await host.thread.run(lambda _: ethtool.read("vif1.0"))
    assert (found["gso"], found["duplex"], found["lro"], found["speed"]) == ("on", "half", "off", "1000")
    assert (await host.links())["vif1.0"].mtu == 1400
    assert "ethtool-tso='perhaps' means nothing" in caplog.text
    assert "lro cannot be set on vif1.0" in caplog.text


async def test_a_promiscuous_card_sees_what_is_for_others(host: Host) -> None:
    descriptors = []
    for domid, mac in enumerate((GUEST, OTHER, THIRD), start=1):
        await host.backend.connect(card(domid, mac=mac))
        descriptors.append(await host.machine(f"vif{domid}.0"))
    first, second, third = descriptors
    try:
        await reach(second, first, frame(OTHER))
        await reach(third, first, frame(THIRD))
        private = frame(GUEST, OTHER, b"private")
        received(third)
        await reach(first, second, private)
        assert private not in received(third)
        await host.backend.configure(card(3, mac=THIRD, rules=CardRules(promiscuous=True)))
        await reach(second, first, frame(OTHER))
        await reach(first, third, private)
        await host.backend.configure(card(3, mac=THIRD))
        await reach(second, first, frame(OTHER))
        received(third)
        await reach(first, second, private)
        assert private not in received(third)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


async def test_a_bridge_is_a_hub_only_while_a_promiscuous_card_is_on_it(host: Host) -> None:
    async def ageing(name: str) -> int:
        return (await host.thread.run(lambda links: links.need(name))).details["ageing_time"]

    await host.backend.connect(card(1, rules=CardRules(promiscuous=True)))
    await host.backend.connect(card(2))
    assert await ageing("xapi0") == 0
    await host.backend.connect(card(1, bridge="xapi1", rules=CardRules(promiscuous=True)))
    assert (await ageing("xapi0"), await ageing("xapi1")) == (30000, 0)
    await host.backend.connect(card(2, bridge="xapi1"))
    await host.backend.disconnect(1, 0)
    assert await ageing("xapi1") == 30000
    await host.kernel("link", "add", ifname="br0", kind="bridge")
    with pytest.raises(NetworkError, match="not ours"):
        await host.backend.connect(card(1, bridge="br0", rules=CardRules(promiscuous=True)))
    assert await host.names() == {"xapi1", "vif2.0", "br0"}


async def test_a_card_that_is_not_there_cannot_be_configured(host: Host) -> None:
    with pytest.raises(NetworkError, match="there is no card"):
        await host.backend.configure(card())
    await host.backend.connect(card())
    with pytest.raises(NetworkError):
        await host.backend.configure(card(mtu=70000))
    assert (await host.thread.run(Links.all))[-1].mtu == 1500


async def test_what_a_killed_daemon_left_of_a_limit_is_removed(host: Host) -> None:
    await host.backend.connect(card(1, rules=CardRules(kilobytes_per_second=RATE)))
    await host.backend.connect(card(2, rules=CardRules(kilobytes_per_second=RATE)))
    await host.kernel("link", "del", index="vif1.0")
    await host.backend.retain({2})
    assert await host.names() == {"xapi0", "vif2.0", "ifb2.0"}
    await host.backend.connect(card(2))
    assert await host.names() == {"xapi0", "vif2.0"}
