"""Networks of Linux bridges and taps. Needs root's rights (CAP_NET_ADMIN) and touches nothing that it did not make,
except for the interfaces that the plan names.

Whatever has the mark of `links.MARK` is ours. A bridge that somebody else made is used as it is and stays.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from domzero.host.hypervisor.spec import TapBackend
from domzero.host.network import bridges, cards, locking, ports
from domzero.host.network.bond import load_bonding
from domzero.host.network.helpers import Helpers
from domzero.host.network.interfaces import InterfaceFacts, describe
from domzero.host.network.links import Link, Links
from domzero.host.network.nft import Nft
from domzero.host.network.plan import NetworkPlan
from domzero.host.network.planned import PlannedLinks
from domzero.host.network.protocol import CardSpec, DeviceState, InterfaceInfo, NetworkError
from domzero.host.network.resolver import Resolver
from domzero.host.network.services import Services
from domzero.host.network.tap import TapOwner
from domzero.host.network.turns import TapNetwork
from domzero.host.network.worker import NetworkThread

log = logging.getLogger(__name__)

RUNTIME = Path("/run/domzero/network")


class BridgeNetwork(TapNetwork):
    """Implements `NetworkBackend`.

    `owner` may open the taps without rights. `namespace` is a file of a network namespace to work in. `facts` says
    where to read what netlink does not tell. `runtime` is a directory of its own for what must survive the daemon but
    not the machine; it is made when it is needed. `resolver` is the host's list of name servers, which is
    written when a bridge of the plan has some; without it, no list is.
    """

    def __init__(
        self,
        *,
        owner: TapOwner | None = None,
        namespace: Path | None = None,
        facts: InterfaceFacts | None = None,
        runtime: Path = RUNTIME,
        resolver: Path | None = None,
    ) -> None:
        self._owner = owner
        self._facts = facts or InterfaceFacts()
        super().__init__(NetworkThread(namespace))
        self._nft = Nft(self._thread)
        self._helpers = Helpers()
        self._resolver = Resolver(resolver, runtime / "dns")
        self._services = Services(self._thread, self._helpers, self._nft, self._resolver, runtime)
        self._links = PlannedLinks(runtime / "found.json")
        self._plan = NetworkPlan()
        self._restricted: set[str] = set()

    async def open(self) -> None:
        """Besides the contract: a tap of ours that no process has open is what a dead daemon left."""
        await self._thread.open()
        async with self._turn:
            self._restricted = await self._restricted_cards()
            await self._thread.run(lambda links: cards.remove_all_but(links, lambda _, tap: tap.carrier))
            await self._tidy()

    async def close(self) -> None:
        self._helpers.close()
        await self._thread.close()

    def mode(self) -> str:
        return "bridge"

    async def devices(self) -> list[DeviceState]:
        return await self._thread.run(lambda links: bridges.describe(links, self._resolver))

    async def interfaces(self) -> list[InterfaceInfo]:
        return await self._thread.run(lambda links: describe(links, self._facts))

    async def _apply(self, plan: NetworkPlan) -> None:
        """Interfaces first, then what serves them; when that fails, back to what was before."""
        self._services.check(plan)
        if plan.bonds:
            await load_bonding()
        undo = await self._thread.run(lambda links: self._links.change(links, plan))
        try:
            await self._services.ensure(plan)
        except NetworkError:
            await self._thread.run(lambda links: self._links.go_back(links, undo))
            await self._services.restore(self._plan)
            raise
        await self._services.end_others(plan)
        await self._thread.run(lambda links: self._links.settle(links, plan))
        self._plan = plan

    async def _connect(self, card: CardSpec) -> TapBackend:
        def prepare(links: Links) -> tuple[Link, bool]:
            tap, new = cards.make(links, card, self._owner)
            try:
                cards.dress(links, tap, card.mtu, card.rules, new=new)
            except NetworkError:
                if new:
                    cards.remove(links, tap)
                raise
            return tap, new

        tap, new = await self._thread.run(prepare)
        try:
            await self._restrict(card)
            await self._thread.run(lambda links: bridges.join(links, tap, card, self._plan, new=new))
        except NetworkError:
            if new:
                await self._disconnect(card.domid, card.slot)
            raise
        return cards.backend(tap, card.rules)

    async def _configure(self, card: CardSpec) -> None:
        def bind(links: Links) -> None:
            tap = cards.need(links, card.domid, card.slot)
            ports.apply_rules(links, tap, card.mac.lower(), card.rules)
            ports.settle(links, links.at(tap.master) if tap.master else None, promiscuous=card.rules.promiscuous)

        await self._thread.run(
            lambda links: cards.dress(links, cards.need(links, card.domid, card.slot), card.mtu, card.rules)
        )
        await self._restrict(card)
        await self._thread.run(bind)

    async def _disconnect(self, domid: int, slot: int) -> None:
        name = cards.tap_name(domid, slot)

        def remove(links: Links) -> None:
            tap = links.find(name)
            if tap is not None and cards.is_tap(tap):
                cards.remove(links, tap)
                bridges.left(links, tap.master, self._plan)

        await self._thread.run(remove)
        await self._open_up(name)

    async def _restrict(self, card: CardSpec) -> None:
        """Put a card under its rules, in one transaction."""
        name = cards.tap_name(card.domid, card.slot)
        if locking.is_open(card.rules):
            await self._open_up(name)
        else:
            await self._nft.change(locking.lock(name, card.mac.lower(), card.rules))
            self._restricted.add(name)

    async def _open_up(self, name: str) -> None:
        if name in self._restricted:
            await self._nft.change(locking.unlock(name))
            self._restricted.discard(name)

    async def _restricted_cards(self) -> set[str]:
        """The cards that an earlier daemon restricted."""
        if shutil.which("nft") is None:
            return set()
        try:
            return set(locking.locked_cards(await self._nft.list("chains", "bridge")))
        except NetworkError as error:
            log.warning("cards cannot be restricted on this machine: %s", error)
            return set()

    async def _tidy(self) -> None:
        """After cards have gone: the rules, the bridges and the hubs that were for them."""

        def tidy(links: Links) -> set[str]:
            bridges.tidy(links, self._plan)
            return {link.name for link in links.all() if cards.is_tap(link)}

        present = await self._thread.run(tidy)
        for name in sorted(self._restricted - present):
            await self._open_up(name)
