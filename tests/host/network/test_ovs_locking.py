"""Machines that forge addresses, on Open vSwitch: the frames of `test_locking`, and what a meter lets through."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from domzero.host.network.plan import CardRules, LockingMode
from domzero.host.network.protocol import NetworkError
from tests.host.network.stage import GUEST, card, comes_to, exchange, frame, reach, received, send
from tests.host.network.switched import NEEDS, SwitchedHost
from tests.host.network.test_locking import FORGED, LOCKED, MARKER, OTHER, OWN, OWN6, PASSES, THIRD

pytestmark = NEEDS


@pytest.fixture
async def machines(switched: SwitchedHost) -> AsyncIterator[tuple[int, int]]:
    """The machine under suspicion, and its neighbour."""
    await switched.backend.connect(card(1, rules=LOCKED))
    await switched.backend.connect(card(2, mac=OTHER))
    first, second = await switched.machine("vif1.0"), await switched.machine("vif2.0")
    yield first, second
    os.close(first)
    os.close(second)


async def test_a_locked_card_sends_what_is_its_own_and_nothing_forged(
    switched: SwitchedHost, machines: tuple[int, int]
) -> None:
    arrived = await exchange(*machines, list(PASSES.values()), MARKER)
    assert [name for name, data in PASSES.items() if data not in arrived] == []
    arrived = await exchange(*machines, list(FORGED.values()), MARKER)
    assert [name for name, data in FORGED.items() if data in arrived] == []
    assert arrived == []
    await switched.backend.configure(card(1))
    # The same frames pass an open card, so that the test could have failed: once the switch has forgotten, by its own
    # clock, what it has decided about each kind of frame before (ovs-vswitchd.conf.db(5), max-revalidator).
    async with asyncio.timeout(30):
        while len(await exchange(*machines, list(FORGED.values()), MARKER)) < len(FORGED):
            pass


@pytest.mark.parametrize(
    "rules", [CardRules(LockingMode.DISABLED, (OWN,), (OWN6,)), CardRules(LockingMode.LOCKED)], ids=["disabled", "none"]
)
async def test_nothing_passes(switched: SwitchedHost, machines: tuple[int, int], rules: CardRules) -> None:
    first, second = machines
    await exchange(first, second, [], MARKER)
    await switched.backend.connect(card(3, mac=THIRD))
    third = await switched.machine("vif3.0")
    try:
        await switched.backend.configure(card(1, rules=rules))
        received(first)
        for data in PASSES.values():
            send(first, data)
        # The neighbours still reach each other; the suspect neither hears them nor is heard.
        arrived = await reach(third, second, frame(THIRD))
        # The host itself may speak on the bridge, too.
        assert set(arrived).isdisjoint(PASSES.values())
        assert received(first) == []
        await switched.backend.configure(card(1, rules=LOCKED))
        assert await exchange(first, second, [], MARKER) == []
        await reach(second, first, frame(OTHER))
    finally:
        os.close(third)


async def test_rules_go_with_their_card(switched: SwitchedHost) -> None:
    await switched.backend.connect(card(1, rules=replace(LOCKED, kilobytes_per_second=64)))
    await switched.backend.connect(card(2, rules=replace(LOCKED, locking=LockingMode.DISABLED)))
    before = switched.switch.flows("xapi0")
    assert "meter" in "".join(before)
    await switched.backend.configure(card(1))
    assert len(switched.switch.flows("xapi0")) == 2
    await switched.backend.configure(card(1, rules=replace(LOCKED, kilobytes_per_second=64)))
    assert switched.switch.flows("xapi0") == before
    await switched.backend.disconnect(1, 0)
    assert len(switched.switch.flows("xapi0")) == 2
    await switched.backend.disconnect(2, 0)


async def test_a_card_whose_rules_are_refused_is_not_made(switched: SwitchedHost) -> None:
    before = await switched.names()
    for rules, mac in (
        (CardRules(LockingMode.LOCKED, ("192.0.2.1/24",)), GUEST),
        (CardRules(LockingMode.LOCKED, (OWN,), ("::1,actions=NORMAL",)), GUEST),
        (LOCKED, "nonsense"),
    ):
        with pytest.raises(NetworkError):
            await switched.backend.connect(card(1, mac=mac, rules=rules))
    assert await switched.names() - {"ovs-netdev"} == before - {"ovs-netdev"}


async def test_a_machine_cannot_draw_another_ones_traffic_to_itself(
    switched: SwitchedHost, machines: tuple[int, int]
) -> None:
    first, second = machines
    await exchange(first, second, [], MARKER)
    await switched.backend.connect(card(3, mac=THIRD))
    third = await switched.machine("vif3.0")
    try:
        await reach(second, third, frame(OTHER))
        received(first)
        for data in (frame(OTHER, "01:80:c2:00:00:0e", kind=0x88CC), frame(OTHER)):
            send(first, data)
        await reach(third, second, frame(THIRD, OTHER))
        assert frame(THIRD, OTHER) not in received(first)
        # And the other way round: a machine that may forge does not get what is for the locked one.
        await exchange(first, second, [], MARKER)
        send(second, frame(GUEST))
        received(second)
        await reach(third, first, frame(THIRD, GUEST))
        assert frame(THIRD, GUEST) not in received(second)
    finally:
        os.close(third)


@pytest.mark.parametrize("locking", [LockingMode.UNLOCKED, LockingMode.LOCKED])
async def test_a_limit_holds(switched: SwitchedHost, machines: tuple[int, int], locking: LockingMode) -> None:
    first, second = machines
    kilobytes = 256
    limited = CardRules(locking, (OWN,), kilobytes_per_second=kilobytes)

    async def flood(seconds: float) -> float:
        """Kilobytes a second that arrive of about four times the limit."""
        data, arrived, sent, passed = MARKER.ljust(1024, b"\0"), 0, 0, 0.0
        received(second)
        begin = time.monotonic()
        while passed < seconds:
            await asyncio.sleep(0)
            while sent < passed * 4 * kilobytes:
                send(first, data)
                sent += 1
            arrived += sum(map(len, received(second)))
            passed = time.monotonic() - begin
        return arrived / 1024 / passed

    await exchange(first, second, [], MARKER)
    await comes_to(lambda: flood(0.5), 3 * kilobytes)
    await switched.backend.configure(card(1, rules=limited))
    await flood(0.5)  # A meter begins with a burst.
    await comes_to(lambda: flood(1.5), 0.7 * kilobytes, 1.3 * kilobytes)
    await switched.backend.configure(card(1, rules=replace(limited, kilobytes_per_second=0)))
    await comes_to(lambda: flood(0.5), 3 * kilobytes)
