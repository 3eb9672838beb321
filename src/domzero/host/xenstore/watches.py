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


class WatchTable:
    """All watches. Those of one path are told in the order in which they were added."""

    def __init__(self) -> None:
        self._by_path: dict[str, dict[Watch, None]] = {}

    def add(self, watch: Watch) -> None:
        """From now on it is found."""
        self._by_path.setdefault(watch.path, {})[watch] = None

    def drop(self, watch: Watch) -> None:
        """A watch that was added is not found any more."""
        there = self._by_path[watch.path]
        del there[watch]
        if not there:
            del self._by_path[watch.path]

    def at(self, path: str) -> tuple[Watch, ...]:
        """Those of exactly this path."""
        return tuple(self._by_path.get(path, ()))

    def over(self, path: str) -> Iterator[Watch]:
        """Those of the path and of all above it, the root first."""
        if self._by_path:
            for above in ancestors(path):
                if above in self._by_path:
                    yield from self.at(above)
