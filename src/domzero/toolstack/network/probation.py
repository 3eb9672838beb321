"""Changes of the management interface are on probation: kept when the host is shown to be reachable, else taken back.

Two things show it: a call from another machine to the address that the host has now, or a gateway that answers on the
interface. When neither came in time, or the daemon ended meanwhile, rows and host are made what they were before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface
from typing import TypeVar

from domzero.engine.calls import Origin
from domzero.engine.clock import settled
from domzero.engine.errors import ApiError
from domzero.engine.transactions import Transaction
from domzero.host.control.protocol import ControlError
from domzero.host.network.protocol import NetworkError
from domzero.idl.types import Ref
from domzero.toolstack.alerts import MANAGEMENT_TAKEN_BACK, tell
from domzero.toolstack.network import network_snapshot
from domzero.toolstack.network.cards import rejoin_cards
from domzero.toolstack.network.host_address import management_pif, primary_address, settle_authority
from domzero.toolstack.network.network_snapshot import Rows
from domzero.toolstack.stack import Stack

log = logging.getLogger(__name__)

Result = TypeVar("Result")

INTERVAL = 1.0
"""Seconds between two questions to the gateway."""


def assert_no_probation(stack: Stack) -> None:
    """Raises OTHER_OPERATION_IN_PROGRESS while an earlier change may still be taken back."""
    if stack.networking.probation is not None:
        raise ApiError("OTHER_OPERATION_IN_PROGRESS", "host", stack.host)


async def reshape_on_probation(
    stack: Stack, change: Callable[[Transaction], Result], replugged: Collection[str] = ()
) -> Result:
    """As `Networking.reshape`, for changes that may cut the host off; the caller holds the lock.

    Returns when the change is made; the probation goes on in the background unless it is over at once.
    """
    before = network_snapshot.take(stack.database, stack.host)
    directory = stack.settings.state_dir
    await asyncio.to_thread(network_snapshot.write, directory, before)
    try:
        result = await stack.networking.reshape(change, replugged)
    except BaseException:
        await asyncio.to_thread(network_snapshot.remove, directory)
        raise
    await Probation(stack, before).begin()
    return result


async def take_back_unproven(stack: Stack) -> list[Ref]:
    """At a start: undo in the rows what was on probation when the daemon ended. The host follows later.

    Gives the cards whose networks this changed.
    """
    directory = stack.settings.state_dir
    before = await asyncio.to_thread(network_snapshot.read, directory)
    if before is None:
        return []
    moved = network_snapshot.moved_cards(stack.database, before)
    log.warning("the daemon ended while a change of the management interface was on probation: it is taken back")
    with stack.database.transaction() as transaction:
        network_snapshot.restore(stack.database, transaction, before)
    _tell(stack, "The toolstack ended before a change of the management interface had proven itself.")
    await stack.database.durable()
    await asyncio.to_thread(network_snapshot.remove, directory)
    return moved


def _tell(stack: Stack, why: str) -> None:
    uuid = stack.database.get("host", stack.host, "uuid")
    tell(stack, MANAGEMENT_TAKEN_BACK, "Host", uuid, f"{why} The host's earlier network is back.")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the host is to be reached."""

    interface: str
    addresses: frozenset[str]
    gateway: str


class Probation:
    """One change, until it is proven or taken back."""

    def __init__(self, stack: Stack, before: Rows) -> None:
        self._stack = stack
        self._before = before
        self._place = _Place("", frozenset(), "")
        self._proven: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Look once, and go on looking in the background if that shows nothing."""
        networking = self._stack.networking
        networking.probation = self
        await self._look()
        if self._proven.done():
            await self._keep()
            return
        self._stack.remote.watch(self._witness)
        self._task = asyncio.get_running_loop().create_task(self._wait())

    async def cancel(self) -> None:
        """Stop looking, as the daemon ends; the next start takes the change back."""
        self._stack.remote.watch(None)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _wait(self) -> None:
        clock = self._stack.clock
        deadline = clock.monotonic() + self._stack.settings.management_probation
        while not self._proven.done() and (left := deadline - clock.monotonic()) > 0:
            if not await settled(clock, self._proven, min(INTERVAL, left)):
                await self._look()
        try:
            await (self._keep() if self._proven.done() else self._take_back())
        except (ApiError, NetworkError, OSError) as error:
            log.error("the probation of the management interface could not be ended: %s", error)

    def _witness(self, origin: Origin) -> None:
        """A call came in."""
        if origin.local or self._proven.done() or not origin.own or not self._place.addresses:
            return
        own = {*self._place.addresses, *_addresses_of(self._stack)}
        if origin.own in self._place.addresses and origin.address not in own and not _is_loopback(origin.address):
            self._proven.set_result(f"{origin.address} called")

    async def _look(self) -> None:
        try:
            self._place = await _place(self._stack)
            answered = await self._stack.control.answers(self._place.gateway, self._place.interface)
        except (NetworkError, ControlError) as error:
            log.warning("the management interface cannot be looked at: %s", error)
            return
        if answered and not self._proven.done():
            self._proven.set_result(f"the gateway {self._place.gateway} answers")

    async def _keep(self) -> None:
        log.info("the change of the management interface is kept: %s", self._proven.result())
        await asyncio.to_thread(network_snapshot.remove, self._stack.settings.state_dir)
        self._end()

    async def _take_back(self) -> None:
        seconds = self._stack.settings.management_probation
        log.error(
            "the change of the management interface is taken back: in %.0f seconds nobody called %s and no gateway "
            "answered on %s", seconds, ", ".join(sorted(self._place.addresses)) or "the host", self._place.interface,
        )  # fmt: skip
        database, networking = self._stack.database, self._stack.networking

        def restore(transaction: Transaction) -> None:
            network_snapshot.restore(database, transaction, self._before)

        async with networking.lock:
            moved = network_snapshot.moved_cards(database, self._before)
            try:
                await networking.reshape(restore, networking.names())
            except NetworkError as error:
                log.error("the host does not take its earlier network back, so only its rows do: %s", error)
                with database.transaction() as transaction:
                    restore(transaction)
                await database.durable()
        await rejoin_cards(self._stack, moved)
        settle_authority(self._stack)
        _tell(self._stack, "A change of the management interface cut the host off.")
        await asyncio.to_thread(network_snapshot.remove, self._stack.settings.state_dir)
        self._end()

    def _end(self) -> None:
        self._stack.remote.watch(None)
        self._stack.networking.probation = None


async def _place(stack: Stack) -> _Place:
    """Where the management interface leads now, what a DHCP server said included. Raises `NetworkError`."""
    pif = management_pif(stack)
    if pif is None:
        return _Place("", frozenset(), "")
    record = stack.database.record("PIF", pif)
    if not record["managed"]:
        return _Place(record["device"], frozenset(filter(None, (primary_address(record),))), record["gateway"])
    bridge = stack.database.get("network", record["network"], "bridge")
    state = next((state for state in await stack.network.devices() if state.name == bridge), None)
    found = () if state is None else state.addresses
    given = state.gateway if state is not None and record["ip_configuration_mode"] == "DHCP" else record["gateway"]
    addresses = {str(ip_interface(text).ip) for text in found} | {primary_address(record)}
    return _Place(bridge, frozenset(filter(None, addresses)), given or record["ipv6_gateway"])


def _addresses_of(stack: Stack) -> set[str]:
    pifs = (row.record for row in stack.database.rows("PIF").values() if row.record["host"] == stack.host)
    return {text.partition("/")[0] for pif in pifs for text in (pif["IP"], *pif["IPv6"]) if text}


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return True
