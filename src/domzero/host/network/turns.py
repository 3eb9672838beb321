"""What the backends with taps share: one change at a time, each carried out to its end, whoever gives it up."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod

from domzero.finish import finish
from domzero.host.hypervisor.spec import TapBackend, UserBackend
from domzero.host.network import cards
from domzero.host.network.plan import NetworkPlan
from domzero.host.network.protocol import CardSpec, NetworkError, TrafficCounters
from domzero.host.network.worker import NetworkThread

log = logging.getLogger(__name__)


class TapNetwork(ABC):
    """The part of `NetworkBackend` that is about cards and plans; what it takes is said by the methods below."""

    def __init__(self, thread: NetworkThread) -> None:
        self._thread = thread
        self._turn = asyncio.Lock()
        """What needs several steps is done by one task at a time."""

    async def apply(self, plan: NetworkPlan) -> None:
        """See `NetworkBackend`."""
        async with self._turn:
            await finish(self._apply(plan))

    async def connect(self, card: CardSpec) -> TapBackend | UserBackend:
        """See `NetworkBackend`."""
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
        """See `NetworkBackend`."""
        async with self._turn:
            await finish(self._configure(card))

    async def disconnect(self, domid: int, slot: int) -> None:
        """See `NetworkBackend`."""
        async with self._turn:
            await finish(self._disconnect(domid, slot))

    async def retain(self, domids: set[int]) -> None:
        """See `NetworkBackend`."""
        kept = frozenset(domids)
        async with self._turn:
            await self._thread.run(lambda links: cards.remove_all_but(links, lambda domid, _: domid in kept))
            await self._tidy()

    async def counters(self, domid: int, slot: int) -> TrafficCounters:
        """See `NetworkBackend`."""
        return await self._thread.run(lambda links: cards.counters(links, domid, slot))

    @abstractmethod
    async def _apply(self, plan: NetworkPlan) -> None: ...

    @abstractmethod
    async def _connect(self, card: CardSpec) -> TapBackend: ...

    @abstractmethod
    async def _configure(self, card: CardSpec) -> None: ...

    @abstractmethod
    async def _disconnect(self, domid: int, slot: int) -> None: ...

    @abstractmethod
    async def _tidy(self) -> None:
        """After cards have gone: what was for them alone."""
