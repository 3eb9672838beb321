"""Who watches what, by path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from domzero.host.xenstore.access import Caller
from domzero.wire.xenstore import ancestors


class Watcher(Protocol):
    """A connection that watches."""

    @property
    def caller(self) -> Caller:
        """Whose rights decide what it hears of."""
        ...

    def deliver(self, path: str, token: bytes) -> None:
        """Something happened at a path, which is told as the watch was set up: absolute or relative."""
        ...


class Watch:
    """One watch. `cut` is what a path loses at its beginning before the watcher is told it."""

    __slots__ = ("cut", "path", "token", "watcher")

    def __init__(self, watcher: Watcher, path: str, token: bytes, cut: int = 0) -> None:
        self.watcher = watcher
        self.path = path
        self.token = token
        self.cut = cut

    def tell(self, path: str) -> None:
        """Deliver an event at a path at or beneath the watched one."""
        self.watcher.deliver(path[self.cut :], self.token)


Group = dict[Watch, None]
"""Watches of one domain at one path, in the order in which they were added."""


class WatchTable:
    """All watches, by path and domain: who may know of a change is asked once for a domain, however many it has."""

    def __init__(self) -> None:
        self._by_path: dict[str, dict[int, Group]] = {}

    def add(self, watch: Watch) -> None:
        """From now on it is found."""
        domains = self._by_path.setdefault(watch.path, {})
        domains.setdefault(watch.watcher.caller.domid, {})[watch] = None

    def drop(self, watch: Watch) -> None:
        """A watch that was added is not found any more."""
        domains = self._by_path[watch.path]
        group = domains[watch.watcher.caller.domid]
        del group[watch]
        if not group:
            del domains[watch.watcher.caller.domid]
            if not domains:
                del self._by_path[watch.path]

    def at(self, path: str) -> tuple[Watch, ...]:
        """Those of exactly this path."""
        return tuple(watch for group in self._by_path.get(path, {}).values() for watch in group)

    def groups(self, path: str, beneath: bool) -> Iterator[Group]:
        """Those of the path and, where what is beneath counts, of all above it, the root first.

        Whoever is told may drop watches: a group that was not looked at yet may be empty then.
        """
        if self._by_path:
            for place in ancestors(path) if beneath else (path,):
                if place in self._by_path:
                    yield from tuple(self._by_path[place].values())
