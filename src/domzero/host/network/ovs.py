"""Networks of Open vSwitch, with the kernel's datapath where the kernel has it, else with the switch's own.

Bridges, uplinks, VLANs and bonds are the switch's (`ovs_layout`); the host's addresses, its services and the cards'
taps are the same as with Linux bridges. Needs root's rights and the machine's own Open vSwitch service.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from domzero.finish import finish
from domzero.host.hypervisor.spec import TapBackend, UserBackend
from domzero.host.network import cards, ovs_flows
from domzero.host.network.helpers import Helpers
from domzero.host.network.interfaces import InterfaceFacts, describe
from domzero.host.network.links import Links
from domzero.host.network.nft import Nft
from domzero.host.network.ovs_addresses import addressed_layout
from domzero.host.network.ovs_devices import read_devices
from domzero.host.network.ovs_layout import MARK, OvsBridge, Present, commands, read_present, wanted_bridges
from domzero.host.network.ovs_tool import RUN_DIRECTORY, OvsTool
from domzero.host.network.plan import NetworkPlan
from domzero.host.network.planned import PlannedLinks, named_interfaces
from domzero.host.network.protocol import CardSpec, DeviceState, InterfaceInfo, NetworkError, TrafficCounters
from domzero.host.network.resolver import Resolver
from domzero.host.network.services import Services
from domzero.host.network.tap import TapOwner
from domzero.host.network.worker import NetworkThread

log = logging.getLogger(__name__)

RUNTIME = Path("/run/domzero/network")
KERNEL_MODULE = Path("/sys/module/openvswitch")
KERNEL, USER_SPACE = "system", "netdev"


class OpenVSwitchNetwork:
    """Implements `NetworkBackend`; parameters as `BridgeNetwork`'s.

    `switch` is the directory of the switch's sockets, and `datapath` its kind, found out when it is not given. A card
    that is to see every packet of its network (`CardRules.promiscuous`) does not: the switch has no such ports.
    """

    def __init__(
        self,
        *,
        owner: TapOwner | None = None,
        namespace: Path | None = None,
        facts: InterfaceFacts | None = None,
        runtime: Path = RUNTIME,
        resolver: Path | None = None,
        switch: Path = RUN_DIRECTORY,
        datapath: str | None = None,
    ) -> None:
        self._owner = owner
        self._facts = facts or InterfaceFacts()
        self._thread = NetworkThread(namespace)
        self._helpers = Helpers()
        self._resolver = Resolver(resolver, runtime / "dns")
        self._services = Services(self._thread, self._helpers, Nft(self._thread), self._resolver, runtime)
        self._links = PlannedLinks(runtime / "found.json", layout=addressed_layout)
        self._switch = OvsTool(switch)
        self._datapath = datapath or (KERNEL if KERNEL_MODULE.exists() else USER_SPACE)
        self._plan = NetworkPlan()
        self._turn = asyncio.Lock()
        """What needs several steps is done by one task at a time."""

    async def open(self) -> None:
        """Besides the contract: a tap of ours that no process has open is what a dead daemon left."""
        await self._thread.open()
        async with self._turn:
            await self._switch.check()
            await self._thread.run(lambda links: cards.remove_all_but(links, lambda _, tap: tap.carrier))
            await self._tidy()

    async def close(self) -> None:
        self._helpers.close()
        await self._thread.close()

    def mode(self) -> str:
        return "openvswitch"

    async def apply(self, plan: NetworkPlan) -> None:
        async with self._turn:
            await finish(self._apply(plan))

    async def devices(self) -> list[DeviceState]:
        present = await self._present()
        ports = await self._switch.rows("Port", "name", "bond_active_slave", "external_ids")
        return await self._thread.run(lambda links: read_devices(links, present, ports, self._resolver))

    async def interfaces(self) -> list[InterfaceInfo]:
        ours = (await self._present()).bridges.keys()
        found = await self._thread.run(lambda links: describe(links, self._facts))
        return [interface for interface in found if interface.name not in ours]

    async def connect(self, card: CardSpec) -> TapBackend | UserBackend:
        async with self._turn:
            try:
                return await finish(self._connect(card))
            except asyncio.CancelledError:
                # It has been done all the same, and whoever was cancelled will not undo what never returned.
                try:
                    await finish(self._disconnect(card.domid, card.slot))
                except NetworkError as error:
                    log.warning("card %d of domain %d is left over: %s", card.slot, card.domid, error)
                raise

    async def configure(self, card: CardSpec) -> None:
        async with self._turn:
            await finish(self._configure(card))

    async def disconnect(self, domid: int, slot: int) -> None:
        async with self._turn:
            await finish(self._disconnect(domid, slot))

    async def retain(self, domids: set[int]) -> None:
        kept = frozenset(domids)
        async with self._turn:
            await self._thread.run(lambda links: cards.remove_all_but(links, lambda domid, _: domid in kept))
            await self._tidy()

    async def counters(self, domid: int, slot: int) -> TrafficCounters:
        return await self._thread.run(lambda links: cards.counters(links, domid, slot))

    async def _present(self) -> Present:
        return read_present(
            await self._switch.rows("Bridge", "name", "ports", "external_ids", "other_config"),
            await self._switch.rows("Port", "_uuid", "name", "interfaces", "tag", "fake_bridge", "external_ids"),
            await self._switch.rows("Interface", "_uuid", "name", "mtu_request"),
        )

    async def _apply(self, plan: NetworkPlan) -> None:
        """The switch first, then the interfaces, then what serves them; when one fails, back to what was before."""
        self._services.check(plan)
        before = await self._change_switch(plan)
        try:
            undo = await self._thread.run(lambda links: self._links.change(links, plan))
            try:
                await self._services.ensure(plan)
            except NetworkError:
                await self._thread.run(lambda links: self._links.go_back(links, undo))
                await self._services.restore(self._plan)
                raise
        except NetworkError:
            await self._back_to(before)
            raise
        await self._services.end_others(plan)
        await self._thread.run(lambda links: self._links.settle(links, plan))
        self._plan = plan

    async def _change_switch(self, plan: NetworkPlan) -> Mapping[str, OvsBridge]:
        """Make the switch what the plan says; what it was before. Raises `NetworkError`, and nothing has changed."""
        present = await self._present()
        names = named_interfaces(plan)
        macs = await self._thread.run(lambda links: {link.name: link.mac for link in links.all()})
        missing = sorted(names - macs.keys())
        if missing:
            raise NetworkError(f"there is no interface {missing[0]} that leads out")
        await self._to(present, wanted_bridges(plan, present, macs))
        return present.bridges

    async def _to(self, present: Present, wanted: Mapping[str, OvsBridge]) -> None:
        await self._switch.transaction(commands(present, wanted, self._datapath))
        for bridge in wanted.values():
            if not bridge.parent:
                await self._switch.change_flows(bridge.name, [ovs_flows.SWITCH_FLOW])

    async def _back_to(self, bridges: Mapping[str, OvsBridge]) -> None:
        try:
            await self._to(await self._present(), dict(sorted(bridges.items(), key=lambda item: bool(item[1].parent))))
        except NetworkError as error:
            log.error("a change of the switch could not be undone: %s", error)

    async def _connect(self, card: CardSpec) -> TapBackend:
        name = cards.tap_name(card.domid, card.slot)
        made = await self._thread.run(lambda links: cards.make(links, card, self._owner))
        try:
            await self._dress(card)
            await self._join(card, name)
        except NetworkError:
            if made:
                await self._disconnect(card.domid, card.slot)
            raise
        # The switch's own datapath passes frames on as they are, so that a guest must complete its checksums itself.
        return TapBackend(name, offloads=self._datapath == KERNEL)

    async def _join(self, card: CardSpec, name: str) -> None:
        """Put the tap on its network's bridge, which is made if it is not there, under the card's rules at once."""
        present = await self._present()
        at = present.cards.get(name)
        if at is not None and at != card.bridge:
            await self._switch.transaction([["--if-exists", "del-port", name]])
        if card.bridge:
            if card.bridge not in present.bridges:
                await self._make_bridge(card.bridge, present)
                present = await self._present()
            bridge = _switch_of(present, card.bridge)
            await self._restrict(card, name, bridge)
            await self._switch.transaction(
                [
                    ["--may-exist", "add-port", card.bridge, name],
                    ["set", "Port", name, f"external_ids:{MARK}=card"],
                ]
            )
            await self._silence(card, name, bridge)
        await self._remove_empty()

    async def _make_bridge(self, name: str, present: Present) -> None:
        if name in present.foreign:
            raise NetworkError(f"the bridge {name} is not ours")
        spec = next((bridge for bridge in self._plan.bridges if bridge.name == name), None)
        bridge = OvsBridge(name, mtu=spec.mtu if spec is not None else card_mtu(self._plan))
        await self._to(present, {**present.bridges, name: bridge})

    async def _configure(self, card: CardSpec) -> None:
        name = cards.tap_name(card.domid, card.slot)
        await self._dress(card)
        present = await self._present()
        if name in present.cards:
            bridge = _switch_of(present, present.cards[name])
            await self._restrict(card, name, bridge)
            await self._silence(card, name, bridge)

    async def _dress(self, card: CardSpec) -> None:
        """The limit is a meter of the switch: its own datapath takes frames before the kernel could hold them back."""
        rules = replace(card.rules, kilobytes_per_second=0)

        def dress(links: Links) -> None:
            cards.dress(links, cards.need(links, card.domid, card.slot), card.mtu, rules)

        await self._thread.run(dress)

    async def _restrict(self, card: CardSpec, name: str, bridge: str) -> None:
        meter = ovs_flows.meter(card.domid, card.slot)
        if card.rules.kilobytes_per_second:
            await self._switch.set_meter(bridge, meter, *ovs_flows.rate(card.rules))
        await self._switch.change_flows(bridge, ovs_flows.restrict(name, card.mac.lower(), card.rules, meter))
        if not card.rules.kilobytes_per_second:
            await self._switch.remove_meter(bridge, meter)

    async def _silence(self, card: CardSpec, name: str, bridge: str) -> None:
        await self._switch.set_forwarding(bridge, name, forward=not ovs_flows.is_silent(card.rules))

    async def _disconnect(self, domid: int, slot: int) -> None:
        name = cards.tap_name(domid, slot)
        await self._leave([name], await self._present())

        def remove(links: Links) -> None:
            tap = links.find(name)
            if tap is not None and cards.is_tap(tap):
                cards.remove(links, tap)

        await self._thread.run(remove)
        await self._remove_empty()

    async def _leave(self, names: list[str], present: Present) -> None:
        """Take cards' ports from the switch, then what was for them alone."""
        there = [name for name in names if name in present.cards]
        await self._switch.transaction([["--if-exists", "del-port", name] for name in there])
        for name in there:
            bridge = _switch_of(present, present.cards[name])
            await self._switch.change_flows(bridge, [ovs_flows.release(name)])
            domid, _, slot = name.removeprefix("vif").partition(".")
            await self._switch.remove_meter(bridge, ovs_flows.meter(int(domid), int(slot)))

    async def _remove_empty(self) -> None:
        """Remove the bridges that nothing is on and that the plan does not need."""
        present = await self._present()
        macs = {bridge.uplink.name: bridge.mac for bridge in present.bridges.values() if bridge.uplink is not None}
        wanted = wanted_bridges(self._plan, present, macs)
        superfluous = [name for name in present.bridges if name not in wanted]
        await self._switch.transaction([["--if-exists", "del-br", name] for name in superfluous])

    async def _tidy(self) -> None:
        """After cards have gone: their ports, and bridges that were for them."""
        present = await self._present()
        taps = await self._thread.run(lambda links: {link.name for link in links.all() if cards.is_tap(link)})
        await self._leave(sorted(present.cards.keys() - taps), present)


def card_mtu(plan: NetworkPlan) -> int:
    """What a bridge that the plan does not know has."""
    return min((bridge.mtu for bridge in plan.bridges), default=1500)


def _switch_of(present: Present, bridge: str) -> str:
    """The real bridge that a network is on, to which its flows belong."""
    there = present.bridges.get(bridge)
    return there.parent if there is not None and there.parent else bridge
