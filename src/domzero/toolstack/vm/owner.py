"""One running machine, and whose turn it is to act on it.

Every machine that is worked on has one `Machine` object. Operations and the handling of the hypervisor's events act on
the domain only while they have the machine's *turn*, first come first served; so each sees what the one before it left.
What the hypervisor says (the domain ended, was paused) is noted at once, whoever has the turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from domzero.host.hypervisor.protocol import DomainStatus, DomainStopped, RunState
from domzero.idl.types import Ref

if TYPE_CHECKING:
    from domzero.engine.clock import Clock


@dataclass(slots=True, eq=False)
class Domain:
    """One run of a machine, as far as the hypervisor has told."""

    domid: int
    started: float
    """On the monotonic clock."""
    bounces: int = 0
    """How many runs before this one ended too soon and were restarted by themselves."""
    state: RunState | None = None
    """What it was last heard to do; None before it was built."""
    status: DomainStatus | None = None
    """Sockets and the like; None until the domain is built."""
    ended: asyncio.Future[DomainStopped] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """Done as soon as the domain is gone."""

    def uptime(self, clock: Clock) -> float:
        """Seconds since the domain was started."""
        return clock.monotonic() - self.started


@dataclass(slots=True, eq=False)
class Machine:
    """A machine that runs, or is being worked on. `domain` changes only in the hands of who has the turn."""

    vm: Ref
    domain: Domain | None = None
    users: int = 0
    """How many have or want the turn."""
    unheard: bool = False
    """Whether something happened to the domain that nobody has dealt with yet."""
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def is_taken(self) -> bool:
        """Whether somebody has the turn."""
        return self._lock.locked()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Have the machine alone; those who came first go first."""
        self.users += 1
        try:
            async with self._lock:
                yield
        finally:
            self.users -= 1
