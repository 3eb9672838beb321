"""Which merges of layers go on, and how whoever needs a disk makes them end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from domzero.engine.errors import ApiError
from domzero.idl.types import NULL_REF, Ref

END_PATIENCE: Final = 60.0
"""Seconds that a merge may take to end in order when a disk is needed."""


@dataclass(slots=True, eq=False)
class RunningMerge:
    """A merge under way. `vm` is the machine that carries it out, null where none has the disks open.

    `stop` makes it end; None before it has begun, when `given_up` is enough.
    """

    sr: Ref
    disks: frozenset[Ref]
    vm: Ref = NULL_REF
    stop: Callable[[], None] | None = None
    given_up: bool = False
    """Somebody needed a disk: it is tried again later, and is no failure."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class MergeRegister:
    """The merges under way.

    A disk's content is the same before, during and after a merge; but the layers must not change otherwise meanwhile.
    So every operation on a disk first takes what keeps new merges from it (an entry in `current_operations` of the
    disk, its drive or its machine, or an attached drive), and then calls `leave`.
    """

    def __init__(self) -> None:
        self._running: set[RunningMerge] = set()
        self.wanted: dict[Ref, None] = {}
        """Repositories where layers may have become superfluous, since the last look."""
        self.called = asyncio.Event()
        """Set when something is added to `wanted`."""

    def want(self, sr: Ref) -> None:
        """Something was deleted in the repository: it is worth a look before long."""
        self.wanted[sr] = None
        self.called.set()

    @contextmanager
    def entered(self, merge: RunningMerge) -> Iterator[None]:
        """Within, the merge can be made to end."""
        self._running.add(merge)
        try:
            yield
        finally:
            self._running.discard(merge)
            merge.ended.set()

    def is_busy(self, sr: Ref) -> bool:
        """Whether a merge goes on in the repository."""
        return any(merge.sr == sr for merge in self._running)

    async def leave(self, *disks: Ref) -> None:
        """Return when no merge goes on that has to do with one of the disks.

        This and the other two raise OTHER_OPERATION_IN_PROGRESS when it does not end.
        """
        await self._end(merge for merge in self._running if not merge.disks.isdisjoint(disks))

    async def leave_machine(self, vm: Ref) -> None:
        """Return when the machine carries out no merge."""
        await self._end(merge for merge in self._running if merge.vm == vm)

    async def leave_repository(self, sr: Ref) -> None:
        """Return when no merge goes on in the repository."""
        await self._end(merge for merge in self._running if merge.sr == sr)

    async def _end(self, merges: Iterable[RunningMerge]) -> None:
        for merge in list(merges):
            if not merge.given_up:
                merge.given_up = True
                if merge.stop is not None:
                    merge.stop()
            try:
                async with asyncio.timeout(END_PATIENCE):
                    await merge.ended.wait()
            except TimeoutError:
                raise ApiError("OTHER_OPERATION_IN_PROGRESS", "SR", merge.sr) from None
