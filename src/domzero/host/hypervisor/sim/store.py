"""Simulated domains on disk: one small file each, so that a change costs the same however many there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from domzero.host.hypervisor.protocol import HypervisorError


class DomainStore:
    """A directory of `<domid>.json`. Each write is atomic; none is synced, for no domain outlives its machine."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self) -> list[dict[str, Any]]:
        """Every record, by domid. Raises `HypervisorError` for a file that is none."""
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            paths = sorted(self._directory.glob("*.json"), key=lambda path: (len(path.name), path.name))
            return [self._read(path) for path in paths]
        except OSError as error:
            raise HypervisorError(f"{self._directory}: {error.strerror}") from error

    def save(self, domid: int, record: dict[str, Any]) -> None:
        path = self._path(domid)
        written = path.with_suffix(".tmp")
        try:
            written.write_bytes(orjson.dumps(record))
            written.replace(path)
        except OSError as error:
            raise HypervisorError(f"{path}: {error.strerror}") from error

    def remove(self, domid: int) -> None:
        self._path(domid).unlink(missing_ok=True)

    def _path(self, domid: int) -> Path:
        return self._directory / f"{domid}.json"

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            record = orjson.loads(path.read_bytes())
        except orjson.JSONDecodeError as error:
            raise HypervisorError(f"{path} is no record of a simulated domain: {error}") from error
        if not isinstance(record, dict):
            raise HypervisorError(f"{path} is no record of a simulated domain")
        return record
