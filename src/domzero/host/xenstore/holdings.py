"""What each domain has in the committed tree: how many nodes it owns, and which ones speak of it."""

from __future__ import annotations

from domzero.host.xenstore.tree import Change
from domzero.wire.xenstore import Permissions


class Holdings:
    """Kept true by every change. Domain 0 is not counted: it is in every node and limited by nothing."""

    def __init__(self) -> None:
        self._owned: dict[int, int] = {}
        self._named: dict[int, dict[str, None]] = {}

    def owned(self, domid: int) -> int:
        """How many nodes a domain owns."""
        return self._owned.get(domid, 0)

    def naming(self, domid: int) -> tuple[str, ...]:
        """The paths of nodes whose permissions name a domain, as owner or otherwise; each after those above it."""
        return tuple(sorted(self._named.get(domid, ())))

    def note(self, change: Change) -> None:
        """A change was committed."""
        before = change.before.permissions if change.before else ()
        after = change.after.permissions if change.after else ()
        if before is not after:
            self._forget(change.path, before)
            self._learn(change.path, after)

    def _learn(self, path: str, permissions: Permissions) -> None:
        if permissions and permissions[0].domid:
            self._owned[permissions[0].domid] = self.owned(permissions[0].domid) + 1
        for domid, _ in permissions:
            if domid:
                self._named.setdefault(domid, {})[path] = None

    def _forget(self, path: str, permissions: Permissions) -> None:
        if permissions and permissions[0].domid:
            left = self.owned(permissions[0].domid) - 1
            if left:
                self._owned[permissions[0].domid] = left
            else:
                del self._owned[permissions[0].domid]
        for domid in {entry.domid for entry in permissions if entry.domid}:
            paths = self._named[domid]
            del paths[path]
            if not paths:
                del self._named[domid]
