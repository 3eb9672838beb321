"""How a verb is delayed, held back or made to fail."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from domzero.host.clock import Clock
from domzero.host.hypervisor.protocol import HypervisorError
from domzero.host.hypervisor.sim.faults import Faults

TENTHS = 10


@dataclass(frozen=True, slots=True)
class WaitingVerb:
    """A verb that waits for `step`."""

    verb: str
    domid: int


class Gate:
    """Every verb passes here before it does anything."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: deque[tuple[WaitingVerb, asyncio.Future[None]]] = deque()

    async def enter(
        self, verb: str, domid: int, faults: Faults, progress: Callable[[float], None] | None = None
    ) -> None:
        """Return when the verb may act. Raises `HypervisorError` when the tester wants it to fail.

        `progress` is told of each tenth of the delay.
        """
        if "step" in faults.flags:
            released: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((WaitingVerb(verb, domid), released))
            await released
        delay = faults.number(f"delay-{verb}")
        if delay and progress is not None:
            for tenth in range(TENTHS):
                progress(tenth / TENTHS)
                await self._clock.sleep(delay / TENTHS)
        elif delay:
            await self._clock.sleep(delay)
        text = faults.texts.get(f"fail-{verb}")
        if text is not None:
            raise HypervisorError(text or f"{verb} fails because the tester asked for it")

    def waiting(self) -> list[WaitingVerb]:
        """The verbs that wait, longest first."""
        return [verb for verb, released in self._waiting if not released.done()]

    def step(self) -> WaitingVerb | None:
        """Let the verb go on that has waited longest; None when none waits."""
        while self._waiting:
            verb, released = self._waiting.popleft()
            if not released.done():
                released.set_result(None)
                return verb
        return None
