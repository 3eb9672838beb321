"""What the toolstack does with the store: as domain 0, within the daemon, without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Protocol

from domzero.wire.xenstore import Access, Permission, Permissions, XenstoreError, home

__all__ = ["Access", "Nodes", "Permission", "Permissions", "Xenstore", "XenstoreError", "home"]


class Nodes(Protocol):
    """Nodes by path, absolute or relative to `/local/domain/0`.

    What guests wrote is hostile: any bytes up to a few KiB, in as many nodes as they may have. Every method is done
    when it returns, and may raise `XenstoreError`: EINVAL for a path that cannot be, ENOENT where there is no node.
    """

    def read(self, path: str) -> bytes:
        """A node's value."""
        ...

    def directory(self, path: str) -> tuple[str, ...]:
        """The names of a node's children."""
        ...

    def exists(self, path: str) -> bool:
        """Whether there is such a node."""
        ...

    def permissions(self, path: str) -> Permissions:
        """Who may use a node: the owner's entry first, which also says what those not named may do."""
        ...

    def write(self, path: str, value: bytes) -> None:
        """Give a node a value. Nodes that are missing are made, with the permissions of the one above."""
        ...

    def make(self, path: str) -> None:
        """Make a node where there is none."""
        ...

    def remove(self, path: str) -> None:
        """Remove a node and all beneath it. Nothing happens when only it is missing; ENOENT when its parent is."""
        ...

    def set_permissions(self, path: str, permissions: Permissions) -> None:
        """Say who may use a node, which need not be known yet as a domain."""
        ...


class Xenstore(Nodes, Protocol):
    """The host's store."""

    def transaction(self) -> AbstractContextManager[Nodes]:
        """Nodes as they are now; at the end of the block all that was done to them happens at once.

        Raises `XenstoreError` (EAGAIN) then, with nothing done, when what was read or written has changed meanwhile,
        which takes an `await` within the block. Nothing is done either when the block ends with an exception.
        """
        ...

    def watch(self, path: str) -> AbstractAsyncContextManager[AsyncIterator[str]]:
        """The paths at or beneath this one where something changes, and once at first this path itself.

        Changes that nobody has looked at yet are told once for each path; where there are very many, the watched path
        stands for all of them. `@introduceDomain` and `@releaseDomain` can be watched, too.
        """
        ...

    def introduce(self, domid: int) -> None:
        """Let a domain connect."""
        ...

    def release(self, domid: int) -> None:
        """A domain is gone: its connections end; nodes that it owns and its rights in others go. ENOENT if unknown."""
        ...

    def shut_down(self, domid: int) -> None:
        """A domain has stopped running and is still there; those who watch `@releaseDomain` hear of it."""
        ...

    def set_target(self, domid: int, target: int | None) -> None:
        """Let a domain act for another, too. ENOENT when one of them was not introduced."""
        ...

    def is_introduced(self, domid: int) -> bool:
        """Whether a domain may connect. Domain 0 always may."""
        ...
