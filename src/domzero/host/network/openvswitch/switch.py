"""One Open vSwitch under our plans: bridges in its database, and beside them the flows and meters of cards.

A bridge of ours passes nothing on until it has its flows, and the cards' come first: at no moment is a restricted card
on a bridge that would let it do more than its rules say.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import replace

from domzero.host.network.cards import TAP_NAME
from domzero.host.network.layout import check_name
from domzero.host.network.openvswitch import flows as ovs_flows
from domzero.host.network.openvswitch.cards import CardNote, read_note, tell
from domzero.host.network.openvswitch.layout import (
    TABLES,
    CardPort,
    OvsBridge,
    Present,
    commands,
    internal,
    join,
    read_present,
    switch_of,
)
from domzero.host.network.openvswitch.tool import OvsTool
from domzero.host.network.plan import CardRules, LockingMode
from domzero.host.network.protocol import CardSpec, NetworkError

log = logging.getLogger(__name__)

CLOSED = CardNote("00:00:00:00:00:00", CardRules(LockingMode.DISABLED))
"""What is made of a card whose note cannot be read."""

RETURN_SECONDS = 1.0
"""How often it is looked whether a switch that has gone is back."""


class Switch:
    """The switch behind `tool`; bridges are made with `datapath` (`system` or `netdev`)."""

    def __init__(self, tool: OvsTool, datapath: str) -> None:
        self._tool = tool
        self._datapath = datapath

    async def check(self) -> None:
        """Raises `NetworkError` where no switch runs."""
        await self._tool.check()

    async def present(self) -> Present:
        """What there is of ours. Raises `NetworkError`, as everything here does."""
        return read_present(await self._tool.tables(TABLES))

    async def to(self, present: Present, wanted: Mapping[str, OvsBridge]) -> None:
        """From what there is to the bridges wanted, cards under their rules all the time."""
        stay = {name for name, there in present.bridges.items() if not there.parent and name in wanted}
        stay -= {name for name in stay if wanted[name].parent}
        for name, card in present.cards.items():
            before, after = switch_of(card.bridge, present.bridges), switch_of(card.bridge, wanted)
            if after != before and after in stay:
                await self._restrict(name, card, after)
        await self._tool.transaction(commands(present, wanted, self._datapath))
        await self.restore(Present(wanted, present.cards, present.foreign))
        for name, card in present.cards.items():
            before = switch_of(card.bridge, present.bridges)
            if before in stay and before != switch_of(card.bridge, wanted):
                await self._release(name, card, before)
        after_all = await self.present()
        ours = {member for bridge in wanted.values() if bridge.uplink for member in bridge.uplink.members}
        for name in sorted((ours | wanted.keys()) & after_all.errors.keys()):
            raise NetworkError(f"Open vSwitch cannot use {name}: {after_all.errors[name]}")

    async def restore(self, present: Present) -> None:
        """Give cards and bridges the flows and meters that they should have, whatever they have."""
        flows: dict[str, list[str]] = {bridge.name: [] for bridge in present.bridges.values() if not bridge.parent}
        for name in flows:
            await self._tool.made(name)
        for name, card in present.cards.items():
            bridge = switch_of(card.bridge, present.bridges)
            note = _note(card)
            if note.rules.kilobytes_per_second:
                await self._tool.set_meter(bridge, _meter(name), *ovs_flows.rate(note.rules))
            if ovs_flows.is_silent(note.rules):
                await self._silence(card, bridge)
            flows[bridge] += _flows(name, card)
        for bridge, lines in flows.items():
            await self._tool.change_flows(bridge, [*lines, ovs_flows.SWITCH_FLOW])

    async def connect(self, card: CardSpec, name: str, mtu: int, taken: AbstractSet[str]) -> bool:
        """Put a tap on its network's bridge, which is made if it is not there, or on none; whether it left another.

        `taken` are the names of interfaces that there are.
        """
        present = await self.present()
        at = present.cards.get(name)
        moves = at is not None and at.bridge != card.bridge
        if moves:
            present = await self.leave([name], present)
            at = None
        if not card.bridge:
            return moves
        if card.bridge not in present.bridges:
            check_new(card.bridge, present, taken)
            # Not by way of `to`, which would look after every card.
            new = internal(card.bridge, mtu)
            await self._tool.transaction(commands(Present({}, {}, frozenset()), {new.name: new}, self._datapath))
            await self._tool.change_flows(new.name, [ovs_flows.SWITCH_FLOW])
        number = at.number if at is not None else present.free_number()
        port = CardPort(card.bridge, number, tell(card.mac, card.rules))
        bridge = switch_of(card.bridge, present.bridges)
        await self._restrict(name, port, bridge, at)
        await self._tool.transaction(join(name, port))
        # Fails for a port that the switch does not have under its number.
        await self._silence(port, bridge)
        return moves

    async def configure(self, card: CardSpec, name: str) -> None:
        """Other rules for a card that is on a bridge."""
        present = await self.present()
        at = present.cards.get(name)
        if at is not None:
            port = CardPort(at.bridge, at.number, tell(card.mac, card.rules))
            bridge = switch_of(at.bridge, present.bridges)
            await self._restrict(name, port, bridge, at)
            await self._silence(port, bridge)
            await self._tool.transaction(join(name, port))

    async def leave(self, names: list[str], present: Present) -> Present:
        """Take cards' ports from the switch, then what was for them alone; what is there then."""
        there = [name for name in names if name in present.cards]
        await self._tool.transaction([["--if-exists", "del-port", name] for name in there])
        for name in there:
            port = present.cards[name]
            await self._release(name, port, switch_of(port.bridge, present.bridges))
        return replace(present, cards={name: card for name, card in present.cards.items() if name not in there})

    async def remove(self, bridges: list[str]) -> None:
        """Remove bridges."""
        await self._tool.transaction([["--if-exists", "del-br", name] for name in bridges])

    async def watch(self, returned: Callable[[], Awaitable[None]]) -> None:
        """Call `returned` when the switch has gone and is back, until it raises no `NetworkError`; goes on for ever."""
        gone = False
        while True:
            try:
                reader, writer = await self._tool.connection()
            except NetworkError:
                gone = True
                await asyncio.sleep(RETURN_SECONDS)
                continue
            try:
                if gone:
                    log.warning("Open vSwitch has been started anew; its flows are put back")
                    await returned()
                with suppress(ConnectionError):
                    while await reader.read(4096):
                        pass
                gone = True
            except NetworkError as error:
                log.error("the networks did not come back with Open vSwitch: %s", error)
                watching = asyncio.current_task()
                if watching is not None and watching.cancelling():
                    return  # Work that had to be finished first has failed, and took the place of the cancellation.
                await asyncio.sleep(RETURN_SECONDS)
            finally:
                writer.close()

    async def _restrict(self, name: str, port: CardPort, bridge: str, before: CardPort | None = None) -> None:
        """The flows and the meter of a card that is to be on a bridge, or is, as `before`."""
        limit = _note(port).rules
        if limit.kilobytes_per_second:
            await self._tool.set_meter(bridge, _meter(name), *ovs_flows.rate(limit))
        await self._tool.change_flows(bridge, _flows(name, port))
        if before is not None and not limit.kilobytes_per_second and _note(before).rules.kilobytes_per_second:
            await self._tool.remove_meter(bridge, _meter(name))

    async def _silence(self, port: CardPort, bridge: str) -> None:
        """Whether anything reaches a card."""
        await self._tool.set_forwarding(bridge, port.number, forward=not ovs_flows.is_silent(_note(port).rules))

    async def _release(self, name: str, port: CardPort, bridge: str) -> None:
        await self._tool.change_flows(bridge, [ovs_flows.release(name)])
        if _note(port).rules.kilobytes_per_second:
            await self._tool.remove_meter(bridge, _meter(name))


def _note(port: CardPort) -> CardNote:
    return read_note(port.told) or CLOSED


def _flows(name: str, port: CardPort) -> list[str]:
    note = _note(port)
    return ovs_flows.restrict(name, port.number, note.mac, note.rules, _meter(name))


def check_new(name: str, present: Present, taken: AbstractSet[str]) -> None:
    """Raises `NetworkError` where no bridge of that name can be made."""
    check_name(name)
    if name in present.foreign or name in taken:
        raise NetworkError(f"the interface {name} is not ours")


def _meter(name: str) -> int:
    match = TAP_NAME.fullmatch(name)
    if match is None:
        raise NetworkError(f"{name} is no card")
    return ovs_flows.meter(int(match[1]), int(match[2]))
