"""The archives of everything that is measured: in memory while it is, in files for the rest of the time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from weakref import WeakValueDictionary

from domzero.engine.clock import Clock
from domzero.finish import in_thread
from domzero.idl.types import Ref
from domzero.toolstack.rrd.archive import Archive
from domzero.toolstack.rrd.columns import AVERAGES
from domzero.toolstack.rrd.export import Owner
from domzero.toolstack.rrd.machine_sources import Reading
from domzero.toolstack.rrd.packing import deflate, pack
from domzero.toolstack.rrd.store import ArchiveStore

log = logging.getLogger(__name__)

SAVE_EVERY = 3600.0
"""Seconds after which what is measured is written down again: as much as a crash may lose."""
ROUNDS = 360
"""Rounds in which all that is due gets written."""
TOGETHER = 8
"""Files that are written at once when all are."""
CLOCKS_DIFFER = 1.0
"""Seconds by which the clock on the wall may be off before history follows it."""


class Archives:
    """`exists` tells whether an owner is still there; what belongs to nobody is removed."""

    def __init__(self, store: ArchiveStore, exists: Callable[[Owner], bool], clock: Clock) -> None:
        self._store = store
        self._exists = exists
        self._clock = clock
        self._live: dict[Owner, Archive] = {}
        self._saved: dict[Owner, float] = {}
        self._failed: dict[Owner, float] = {}
        self._gone: set[Owner] = set()
        self._opening = asyncio.Lock()
        self._turns: WeakValueDictionary[Owner, asyncio.Lock] = WeakValueDictionary()
        """One file is written by one at a time."""
        self._tidied: float | None = None
        self._offset: float | None = None
        self.readings: dict[Ref, Reading] = {}
        """The latest reading of each machine that runs."""

    def now(self) -> float:
        """Seconds since 1970 that go on evenly, unless the clock was set."""
        even, wall = self._clock.monotonic(), self._clock.now().timestamp()
        if self._offset is None or abs(wall - even - self._offset) > CLOCKS_DIFFER:
            self._offset = wall - even
        return even + self._offset

    def get(self, owner: Owner) -> Archive | None:
        """The archive of something that is measured now."""
        return self._live.get(owner)

    def live(self) -> list[tuple[Owner, Archive]]:
        """All that are measured now."""
        return list(self._live.items())

    async def open(self, owner: Owner, functions: Sequence[str] = AVERAGES) -> Archive:
        """The archive to add readings to: the one there is, or a new one with those functions."""
        found = self._live.get(owner)
        if found is not None:
            return found
        async with self._opening:
            found = self._live.get(owner)
            if found is None:
                # What belonged to a former owner of the uuid is not to come back.
                kept = None if owner in self._gone else await in_thread(self._store.load, owner)
                self._gone.discard(owner)
                found = kept or Archive(functions)
                self._live[owner] = found
                self._saved[owner] = self._clock.monotonic()
        return found

    async def kept(self, owner: Owner) -> Archive | None:
        """The archive as it is, measured or not; None where there never was one."""
        if owner in self._gone:
            return None
        return self._live.get(owner) or await in_thread(self._store.load, owner)

    async def put(self, owner: Owner, archive: Archive) -> bool:
        """Let an owner have this history in place of what there is. Whether it was written down; if not, it is logged.

        One that is not measured is in memory until the next `keep`.
        """
        async with self._opening:
            self._gone.discard(owner)
            self._live[owner] = archive
        return await self.save(owner)

    def forget(self, owner: Owner) -> None:
        """The owner is gone: let its history go. The file goes with the next `keep`."""
        self._drop(owner)
        self._gone.add(owner)

    async def keep(self, is_measured: Callable[[Owner], bool]) -> None:
        """One round of looking after files: of what is not measured any more, and of what has not been for long."""
        await self._remove_gone()
        now = self._clock.monotonic()
        for owner in [owner for owner in self._live if not is_measured(owner)]:
            tried = self._failed.get(owner)
            if tried is not None and now - tried < SAVE_EVERY:
                continue
            if await self.save(owner) and not is_measured(owner):
                self._drop(owner)
        due = [owner for owner, saved in self._saved.items() if now - saved >= SAVE_EVERY]
        for owner in sorted(due, key=self._saved.__getitem__)[: 1 + len(self._live) // ROUNDS]:
            await self.save(owner)
        if self._tidied is None or now - self._tidied >= SAVE_EVERY:
            leftovers = self._tidied is None
            self._tidied = now
            live = frozenset(self._live)
            found = await in_thread(self._store.owners)
            orphans = frozenset(owner for owner in found if not self._exists(owner))
            await in_thread(self._store.tidy, orphans, live, leftovers=leftovers)

    async def save_all(self) -> None:
        """Write everything down. What cannot be written is logged."""
        await self._remove_gone()
        owners = list(self._live)
        for begin in range(0, len(owners), TOGETHER):
            await asyncio.gather(*(self.save(owner) for owner in owners[begin : begin + TOGETHER]))

    async def save(self, owner: Owner) -> bool:
        """Write one down. Whether that went well; if not, it is logged."""
        turn = self._turns.setdefault(owner, asyncio.Lock())
        async with turn:
            archive = self._live.get(owner)
            if archive is None:
                return True
            self._saved[owner] = self._clock.monotonic()
            pieces = pack(archive)
            try:
                await in_thread(lambda: self._store.save(owner, deflate(pieces)))
            except OSError as error:
                log.warning("the history of %s cannot be kept: %s", owner, error)
                self._failed[owner] = self._clock.monotonic()
                return False
            self._failed.pop(owner, None)
            if owner not in self._live and not self._exists(owner):
                self._gone.add(owner)
            return True

    async def _remove_gone(self) -> None:
        while self._gone:
            owner = self._gone.pop()
            if owner not in self._live:
                await in_thread(self._store.remove, owner)

    def _drop(self, owner: Owner) -> None:
        for kept in (self._live, self._saved, self._failed):
            kept.pop(owner, None)
