"""The door: checks passwords, makes guessing slow, and opens sessions.

A wrong password costs its caller a random wait of some seconds. The waits run side by side and hold nothing but their
connection; how many run at once is bounded for each address and altogether, so that they cannot be used as a weapon.
Checking a password is dear, so callers of one address take turns at it: others need not wait for all of them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from random import Random, SystemRandom

from domzero.engine.calls import Origin
from domzero.engine.clock import Clock
from domzero.engine.errors import ApiError, UnheardError
from domzero.engine.sessions import Account, Session, Sessions
from domzero.engine.users import REFUSED, Users

DELAY = (3.0, 6.0)
"""Seconds that a wrong password costs, at least and at most."""
DELAYS_PER_ADDRESS = 16
"""Callers of one address that may be waiting; further ones are refused unheard until a wait ends."""
CHECKS_PER_ADDRESS = 4
"""Passwords from one address that are being checked at the same time; further callers wait for their turn."""
DELAYS = 256
"""Callers altogether that may be waiting; further ones are answered without a wait."""
LONGEST_NAME = 256
TOO_MANY = "Too many wrong passwords came from this address."


@dataclass(slots=True)
class _Queue:
    """The callers of one address whose passwords are checked or to be checked."""

    turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CHECKS_PER_ADDRESS))
    members: int = 0


class Door:
    """Logs accounts in. A local caller is root, whatever name and password it gives."""

    def __init__(self, users: Users, sessions: Sessions, clock: Clock, random: Random | None = None) -> None:
        self._users = users
        self._sessions = sessions
        self._clock = clock
        self._random = SystemRandom() if random is None else random
        self._waiting: Counter[str] = Counter()
        self._queues: dict[str, _Queue] = {}

    @property
    def waiting(self) -> int:
        """Callers that wait because their password was wrong."""
        return self._waiting.total()

    async def login(self, name: str, password: str, originator: str, origin: Origin) -> Session:
        """A new session. Raises `SESSION_AUTHENTICATION_FAILED` or `SESSION_AUTHORIZATION_FAILED`, in its own time."""
        return self._sessions.open(await self.prove(name, password, origin), originator[:LONGEST_NAME])

    async def login_locally(self, name: str, password: str, origin: Origin) -> Session:
        """A session for emergency calls on this host alone; only root may have one. Raises as `login` does."""
        account = await self.prove(name, password, origin)
        if not account.superuser:
            raise ApiError("SESSION_AUTHENTICATION_FAILED", name, REFUSED)
        return self._sessions.open_emergency(account)

    async def prove(self, name: str, password: str, origin: Origin) -> Account:
        """The account behind a name and password, without a session. Raises as `login` does."""
        if origin.local:
            return self._users.root()
        if len(name) > LONGEST_NAME:
            raise ApiError("SESSION_AUTHENTICATION_FAILED", name[:LONGEST_NAME], REFUSED)
        place = whereabouts(origin.address)
        async with self._turn(place):
            if self._waiting[place] >= DELAYS_PER_ADDRESS:
                raise UnheardError("SESSION_AUTHENTICATION_FAILED", name, TOO_MANY)
            try:
                return await self._users.authenticate(name, password)
            except ApiError as error:
                denied = error
        await self._delay(place)
        raise denied

    @asynccontextmanager
    async def _turn(self, place: str) -> AsyncIterator[None]:
        queue = self._queues.setdefault(place, _Queue())
        queue.members += 1
        try:
            async with queue.turns:
                yield
        finally:
            queue.members -= 1
            if not queue.members:
                del self._queues[place]

    async def _delay(self, address: str) -> None:
        if self.waiting >= DELAYS:
            return
        self._waiting[address] += 1
        try:
            await self._clock.sleep(self._random.uniform(*DELAY))
        finally:
            self._waiting[address] -= 1
            if not self._waiting[address]:
                del self._waiting[address]


def whereabouts(address: str) -> str:
    """What counts as one address: of IPv6 the network of 64 bits, all of whose addresses one machine may use."""
    try:
        found = ip_address(address)
    except ValueError:
        return address
    if not isinstance(found, IPv6Address):
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(IPv6Address(int(found) >> 64 << 64))
