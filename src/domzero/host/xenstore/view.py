"""A tree as one caller works on it: each operation checks, changes, and notes what it depended on and what it did.

The committed tree and a transaction's snapshot are worked on alike; only the latter's notes are kept until its end.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from domzero.host.xenstore.access import Caller, allowed, inherited, owns
from domzero.host.xenstore.tree import (
    Cause,
    Change,
    Node,
    differences,
    find,
    fresh_node,
    nearest,
    parent,
    placed,
    removed,
)
from domzero.wire.xenstore import Access, Permissions, XenstoreError


class Aspect(Enum):
    """What of a node an operation depended on."""

    CONTENT = "that it is there or not, its value, its permissions"
    LISTING = "the names of its children"
    WHOLE = "it and all beneath it"


Touched = set[tuple[str, Aspect]]


class View:
    """A root, and what its caller did to it. `fresh` gives a version that no node has yet.

    Nodes of its epoch are changed in place, so that `root` may stay the same. `room` is how many nodes the caller may
    make: with those that go, it gets room again. Each method raises `XenstoreError` and has then changed nothing.
    `touched` grows by what the outcome depended on, errors too.
    """

    def __init__(self, caller: Caller, root: Node, fresh: Callable[[], int], epoch: int, room: int) -> None:
        self.root = root
        self.changes: list[Change] = []
        self.touched: Touched = set()
        self._caller = caller
        self._fresh = fresh
        self._epoch = epoch
        self._room = room

    def node(self, path: str, need: Access) -> Node:
        """A node that the caller may use so.

        ENOENT where there is none, EACCES where it may not, also where it may not know that there is none.
        """
        node = find(self.root, path)
        if node is None:
            above, lowest = nearest(self.root, path)
            self.touched.add((above, Aspect.CONTENT))
            self.touched.add((path[: (path + "/").index("/", len(above) + 1)], Aspect.CONTENT))
            raise XenstoreError("ENOENT" if allowed(self._caller, lowest.permissions, need) else "EACCES")
        self.touched.add((path, Aspect.CONTENT))
        if not allowed(self._caller, node.permissions, need):
            raise XenstoreError("EACCES")
        return node

    def listing(self, path: str) -> Node:
        """A node whose children's names the caller may see."""
        node = self.node(path, Access.READ)
        self.touched.add((path, Aspect.LISTING))
        return node

    def write(self, path: str, value: bytes) -> None:
        """Give a node a value, and make it and those above it where they are missing."""
        node = self._writable(path)
        if node is None:
            self._make(path, value)
        else:
            self._put(path, node, value, node.permissions)

    def make(self, path: str) -> None:
        """Make a node, and those above it, where there is none."""
        if self._writable(path) is None:
            self._make(path, b"")

    def remove(self, path: str) -> None:
        """Remove a node with all beneath it, whoever's that is. What is not there needs a parent that is."""
        if path == "/":
            raise XenstoreError("EINVAL")
        node = self._writable(path)
        if node is None:
            if find(self.root, parent(path)) is None:
                raise XenstoreError("ENOENT")
            return
        self.touched.add((path, Aspect.WHOLE))
        self.root = removed(self.root, path, self._fresh(), self._epoch)
        gone = list(differences(path, node, None))
        self.changes.extend(gone)
        self._room += sum(1 for change in gone if change.before and self._is_mine(change.before))

    def set_permissions(self, path: str, permissions: Permissions) -> None:
        """Say who may use a node. Only its owner may, and only domain 0 may give it away (EPERM)."""
        node = self.node(path, Access.WRITE)
        if not owns(self._caller, node.permissions):
            raise XenstoreError("EACCES")
        if not self._caller.privileged and permissions[0].domid != node.permissions[0].domid:
            raise XenstoreError("EPERM")
        self._put(path, node, node.value, permissions)

    def _is_mine(self, node: Node) -> bool:
        return node.permissions[0].domid == self._caller.domid

    def _writable(self, path: str) -> Node | None:
        try:
            return self.node(path, Access.WRITE)
        except XenstoreError as error:
            if error.code != "ENOENT":
                raise
            return None

    def _put(self, path: str, node: Node, value: bytes, permissions: Permissions) -> None:
        version = self._fresh()
        children = node.children if node.epoch == self._epoch else node.children.copy()
        fresh = Node(value, permissions, version, self._epoch, children, node.listing)
        self.root = fresh if path == "/" else placed(self.root, path, fresh, version, self._epoch)
        self.changes.append(Change(path, node, fresh))

    def _make(self, path: str, value: bytes) -> None:
        above, lowest = nearest(self.root, path)
        missing = path[len(above) :].strip("/").split("/")
        if len(missing) > self._room:
            raise XenstoreError("ENOSPC")
        self._room -= len(missing)
        permissions = inherited(self._caller, lowest.permissions)
        version = self._fresh()
        node = fresh_node(value, permissions, version, self._epoch)
        made = [Change(path, None, node)]
        for name in reversed(missing[1:]):
            node = Node(b"", permissions, version, self._epoch, {name: node}, version)
            path = parent(path)
            made.append(Change(path, None, node, Cause.PARENT))
        self.root = placed(self.root, path, node, version, self._epoch)
        self.changes.extend(reversed(made))


def unchanged(base: Node, current: Node, touched: Touched) -> bool:
    """Whether what was touched in one tree is the same in another."""
    return base is current or all(_same(find(base, path), find(current, path), aspect) for path, aspect in touched)


def _same(before: Node | None, after: Node | None, aspect: Aspect) -> bool:
    if before is after:
        return True
    if before is None or after is None or aspect is Aspect.WHOLE:
        return False
    if aspect is Aspect.LISTING:
        return before.listing == after.listing
    return before.version == after.version
