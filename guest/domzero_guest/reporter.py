"""Keeps the store saying what is true of the guest; only what has changed is written."""

import logging
import time
from typing import Dict, Iterable, List, Set

from . import report
from .store import Refused, Store

log = logging.getLogger(__name__)

UPDATED = "data/updated"
SIGN_OF_LIFE = 60.0
"""Seconds after which a guest in which nothing changes says that it is still there."""


class Reporter:
    """The report of one connection. `has_told` is whether the host has taken `data/updated`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: Dict[str, str] = {}
        self._refused: Set[str] = set()
        self._told_at = float("-inf")
        self._first = True
        self.has_told = False

    def tell(self, wanted: report.Nodes, monotonic: float, now: float) -> None:
        """Write what differs from what is known to be there, then `data/updated` if anything did or it is time to.

        A node that the host refuses is left out as long as the connection lasts. Raises `Lost`.
        """
        changed = self._first
        for path, value in wanted.items():
            changed |= self._set(path, value)
        if self._first or any(_is_listed(path) and path not in wanted for path in self._known):
            changed |= self._remove_stale(wanted)
        self._first = False
        if changed or monotonic - self._told_at >= SIGN_OF_LIFE:
            self.has_told = self._attempt(UPDATED, time.strftime("%Y%m%dT%H:%M:%SZ", time.gmtime(now)))
            self._told_at = monotonic

    def set(self, path: str, value: str) -> None:
        """Write one node if it differs. Raises `Lost`."""
        self._set(path, value)

    def _set(self, path: str, value: str) -> bool:
        if path not in self._known and path not in self._refused:
            self._look(path)
        return self._known.get(path) != value and self._attempt(path, value)

    def _look(self, path: str) -> None:
        """An agent before this one may have said it already."""
        try:
            self._known[path] = self._store.read(path).decode("utf-8", "replace")
        except Refused as error:
            log.debug("%s: %s", path, error.code)

    def _attempt(self, path: str, value: str) -> bool:
        if path in self._refused:
            return False
        try:
            self._store.write(path, value.encode("utf-8"))
        except Refused as error:
            log.warning("the host does not take %s: %s", path, error.code)
            self._refused.add(path)
            return False
        if path != UPDATED:
            self._known[path] = value
        return True

    def _remove_stale(self, wanted: report.Nodes) -> bool:
        gone: List[str] = []
        for directory in report.LISTS:
            gone += report.stale(self._children, wanted, directory)
        for path in gone:
            try:
                self._store.remove(path)
            except Refused as error:
                log.warning("%s cannot be removed: %s", path, error.code)
        self._known = {path: value for path, value in self._known.items() if path in wanted or not _is_listed(path)}
        return bool(gone)

    def _children(self, directory: str) -> Iterable[str]:
        try:
            return self._store.children(directory)
        except Refused:
            return ()


def _is_listed(path: str) -> bool:
    return path.startswith(tuple(directory + "/" for directory in report.LISTS))
