"""Networks of Open vSwitch, with the kernel's datapath where the kernel has it, else with the switch's own.

Bridges, uplinks, VLANs and bonds are the switch's (`layout`); the host's addresses, its services and the cards'
taps are the same as with Linux bridges. Needs root's rights and the machine's own Open vSwitch service.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from domzero.finish import finish
from domzero.host.hypervisor.spec import TapBackend
from domzero.host.network import cards
from domzero.host.network.helpers import Helpers
from domzero.host.network.interfaces import InterfaceFacts
from domzero.host.network.layout import MADE, is_needed
from domzero.host.network.links import Links
from domzero.host.network.nft import Nft
from domzero.host.network.openvswitch.addresses import (
    addressed_layout,
    stale_bridges,
    with_trunks,
    with_whole_frames,
    write_indices,
)
from domzero.host.network.openvswitch.devices import read_devices, read_interfaces
from domzero.host.network.openvswitch.layout import OvsBridge, Present, wanted_bridges
from domzero.host.network.openvswitch.switch import Switch, check_new
from domzero.host.network.openvswitch.tool import RUN_DIRECTORY, OvsTool
from domzero.host.network.plan import NetworkPlan
from domzero.host.network.planned import PlannedLinks, named_interfaces
from domzero.host.network.protocol import CardSpec, DeviceState, InterfaceInfo, NetworkError
from domzero.host.network.resolver import Resolver
from domzero.host.network.services import Services
from domzero.host.network.tap import TapOwner
from domzero.host.network.turns import TapNetwork
from domzero.host.network.worker import NetworkThread

log = logging.getLogger(__name__)

RUNTIME = Path("/run/domzero/network")
KERNEL_MODULE = Path("/sys/module/openvswitch")
KERNEL, USER_SPACE = "system", "netdev"
DEFAULT_MTU = 1500
LOOPBACK = "lo"


class OpenVSwitchNetwork(TapNetwork):
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
        super().__init__(NetworkThread(namespace))
        self._helpers = Helpers()
        self._resolver = Resolver(resolver, runtime / "dns")
        self._services = Services(self._thread, self._helpers, Nft(self._thread), self._resolver, runtime)
        self._record, self._served = runtime / "found.json", runtime / "served.json"
        self._datapath = datapath or (KERNEL if KERNEL_MODULE.exists() else USER_SPACE)
        self._switch = Switch(OvsTool(switch), self._datapath)
        self._watching: asyncio.Task[None] | None = None
        self._plan: NetworkPlan | None = None
        """None: none was carried out yet."""

    async def open(self) -> None:
        """Besides the contract: a tap of ours that no process has open is what a dead daemon left."""
        await self._thread.open()
        async with self._turn:
            await self._switch.check()
            await self._thread.run(lambda links: cards.remove_all_but(links, lambda _, tap: tap.carrier))
            await self._thread.run(self._take_over)
            await self._tidy()
            # It may have been started anew while there was no daemon.
            await self._switch.restore(await self._switch.present())
        if self._watching is None:
            self._watching = asyncio.create_task(self._switch.watch(self._returned))

    async def close(self) -> None:
        watching, self._watching = self._watching, None
        if watching is not None:
            watching.cancel()
            await asyncio.wait({watching})
        self._helpers.close()
        await self._thread.close()

    def mode(self) -> str:
        return "openvswitch"

    async def devices(self) -> list[DeviceState]:
        present = await self._switch.present()
        return await self._thread.run(lambda links: read_devices(links, present, self._resolver))

    async def interfaces(self) -> list[InterfaceInfo]:
        present = await self._switch.present()
        return await self._thread.run(lambda links: read_interfaces(links, self._facts, present))

    def _take_over(self, links: Links) -> None:
        """A daemon that worked with Linux bridges may have left some: their uplinks get back what they had."""
        if any(link.ours and link.kind in MADE for link in links.all()):
            planned = PlannedLinks(self._record)
            planned.change(links, NetworkPlan())
            planned.settle(links, NetworkPlan())

    async def _apply(self, plan: NetworkPlan) -> None:
        """The switch first, then the interfaces, then what serves them; when one fails, back to what was before."""
        self._services.check(plan)
        before = await self._change_switch(plan)
        try:
            links = PlannedLinks(self._record, layout=partial(addressed_layout, ours=await self._bridges()))
            told = self._asking(plan)
            undo = await self._thread.run(lambda netlink: links.change(netlink, told))
            try:
                await self._end_orphans(plan)
                await self._services.ensure(plan)
            except NetworkError:
                await self._thread.run(lambda netlink: links.go_back(netlink, undo))
                await self._services.restore(self._plan or NetworkPlan())
                raise
        except NetworkError:
            await self._back_to(before)
            raise
        await self._services.end_others(plan)
        await self._thread.run(lambda netlink: links.settle(netlink, told))
        await self._thread.run(lambda netlink: write_indices(self._served, netlink, plan))
        self._plan = plan

    async def _end_orphans(self, plan: NetworkPlan) -> None:
        """End what serves a bridge that was made anew meanwhile: it is bound to an interface that is no more."""
        stale = await self._thread.run(lambda links: stale_bridges(self._served, links))
        if stale:
            kept = tuple(bridge for bridge in plan.bridges if bridge.name not in stale)
            await self._services.end_others(replace(plan, bridges=kept))

    async def _bridges(self) -> frozenset[str]:
        return frozenset((await self._switch.present()).bridges)

    def _asking(self, plan: NetworkPlan) -> NetworkPlan:
        """With what the switch needs of the interfaces besides."""
        asked = with_trunks(plan)
        return with_whole_frames(asked) if self._datapath == USER_SPACE else asked

    async def _change_switch(self, plan: NetworkPlan) -> Mapping[str, OvsBridge]:
        """Make the switch what the plan says; what it was before. Raises `NetworkError`, and nothing has changed."""
        present = await self._switch.present()
        macs = await self._thread.run(lambda links: {link.name: link.mac for link in links.all() if not link.ours})
        missing = sorted(named_interfaces(plan) - (macs.keys() - present.bridges.keys() - {LOOPBACK}))
        if missing:
            raise NetworkError(f"there is no interface {missing[0]} that leads out")
        wanted = wanted_bridges(plan, present, macs)
        for name in wanted.keys() - present.bridges.keys():
            check_new(name, present, macs.keys())
        try:
            await self._switch.to(present, wanted)
        except NetworkError:
            await self._back_to(present.bridges)
            raise
        return present.bridges

    async def _back_to(self, bridges: Mapping[str, OvsBridge]) -> None:
        try:
            now = await self._switch.present()
            await self._switch.to(now, dict(sorted(bridges.items(), key=lambda item: bool(item[1].parent))))
        except NetworkError as error:
            log.error("a change of the switch could not be undone: %s", error)

    async def _returned(self) -> None:
        """The switch was started anew: its bridges have lost their flows, and maybe their interfaces."""
        async with self._turn:
            await finish(self._tidy())
            await self._switch.restore(await self._switch.present())
            if self._plan is not None:
                await finish(self._apply(self._plan))

    async def _connect(self, card: CardSpec) -> TapBackend:
        tap, new = await self._thread.run(lambda links: cards.make(links, card, self._owner))
        try:
            await self._dress(card, new=new)
            taken = await self._thread.run(lambda links: {link.name for link in links.all()})
            left = await self._switch.connect(card, tap.name, self._mtu_of(card.bridge), taken)
            await self._thread.run(lambda links: links.set(tap, state="up"))
            if left:
                await self._remove_empty(await self._switch.present())
        except NetworkError:
            if new:
                await self._disconnect(card.domid, card.slot)
            raise
        # The switch's own datapath passes frames on as they are, so that a guest must complete its checksums itself.
        return cards.backend(tap, card.rules, offloads=self._datapath == KERNEL)

    def _mtu_of(self, bridge: str) -> int:
        bridges = self._plan.bridges if self._plan is not None else ()
        return next((spec.mtu for spec in bridges if spec.name == bridge), DEFAULT_MTU)

    async def _configure(self, card: CardSpec) -> None:
        await self._dress(card)
        await self._switch.configure(card, cards.tap_name(card.domid, card.slot))

    async def _dress(self, card: CardSpec, *, new: bool = False) -> None:
        """The limit is a meter of the switch: its own datapath takes frames before the kernel could hold them back."""
        rules = replace(card.rules, kilobytes_per_second=0)

        def dress(links: Links) -> None:
            cards.dress(links, cards.need(links, card.domid, card.slot), card.mtu, rules, new=new)

        await self._thread.run(dress)

    async def _disconnect(self, domid: int, slot: int) -> None:
        name = cards.tap_name(domid, slot)

        def remove(links: Links) -> None:
            tap = links.find(name)
            if tap is not None and cards.is_tap(tap):
                cards.remove(links, tap)

        try:
            present = await self._switch.leave([name], await self._switch.present())
        finally:
            await self._thread.run(remove)
        await self._remove_empty(present)

    async def _remove_empty(self, present: Present) -> None:
        """Remove the bridges that lead nowhere, that nothing is on and that no plan needs."""
        needed = present.occupied() | {bridge.parent for bridge in present.bridges.values()}
        if self._plan is not None:
            needed |= {spec.name for spec in self._plan.bridges if is_needed(spec)}
        # An earlier daemon's plan may be still to come: who has addresses stays, as with Linux bridges.
        needed |= await self._thread.run(_with_addresses)
        alone = [name for name, bridge in present.bridges.items() if bridge.uplink is None and not bridge.parent]
        await self._switch.remove([name for name in alone if name not in needed])

    async def _tidy(self) -> None:
        """After cards have gone: their ports, and bridges that were for them."""
        present = await self._switch.present()
        taps = await self._thread.run(lambda links: {link.name for link in links.all() if cards.is_tap(link)})
        await self._remove_empty(await self._switch.leave(sorted(present.cards.keys() - taps), present))


def _with_addresses(links: Links) -> set[str]:
    addresses = links.addresses()
    return {link.name for link in links.all() if link.index in addresses}
