"""`DiskContents` of a simulated host: the simulator's own files, with the failures that a tester asked for."""

from __future__ import annotations

from pathlib import Path

from domzero.host.clock import Clock
from domzero.host.contents.files import FileContents
from domzero.host.contents.protocol import ContentError, MediumFullError
from domzero.host.storage import numbers
from domzero.host.storage.protocol import StorageError
from domzero.host.storage.sim import SimStorage
from domzero.host.storage.sim_faults import enter


class SimContents(FileContents):
    """Implements `DiskContents`. Faults are those of the repository that a disk is in (`storage.sim`)."""

    def __init__(self, clock: Clock, *storages: SimStorage) -> None:
        super().__init__(self._pass)
        self._clock = clock
        self._storages = storages

    async def _pass(self, verb: str, path: Path) -> None:
        for storage in self._storages:
            repository = storage.repository_at(path)
            if repository is not None:
                try:
                    await enter(verb, repository, self._clock)
                except StorageError as error:
                    kind = MediumFullError if error.number == numbers.NO_SPACE else ContentError
                    raise kind(error.text) from error
