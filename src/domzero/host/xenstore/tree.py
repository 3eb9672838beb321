"""The tree of nodes: to keep a whole tree as it is means to keep its root.

A change makes new nodes from the root to the place of the change and shares all others with the tree before it. Whether
a part of two trees is the same is therefore seen at its top. Only nodes of the same epoch are changed in place: those
that were made since anybody kept a root, so that nobody but the one who changes them can see them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from domzero.wire.xenstore import Access, Permission, Permissions

NOBODY: Permissions = (Permission(0, Access.NONE),)
"""For domain 0 alone."""
_NONE: dict[str, Node] = {}


class Node:
    """A value, who may use it, and what is beneath.

    `version` tells one content (value and permissions) of a node from any other, `listing` one set of children's names.
    `epoch` is when it was made.
    """

    __slots__ = ("children", "epoch", "listing", "permissions", "value", "version")

    def __init__(
        self, value: bytes, permissions: Permissions, version: int, epoch: int, children: dict[str, Node],
        listing: int,
    ) -> None:  # fmt: skip
        self.value = value
        self.permissions = permissions
        self.version = version
        self.epoch = epoch
        self.children = children
        self.listing = listing


def fresh_node(value: bytes = b"", permissions: Permissions = NOBODY, version: int = 0, epoch: int = 0) -> Node:
    """A node without children."""
    return Node(value, permissions, version, epoch, {}, version)


class Cause(Enum):
    """How a change came about; it decides who hears of it."""

    DIRECT = "the node itself was meant"
    PARENT = "it was made since something beneath it was"
    REMOVED_WITH = "it went with a node above it"


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one node. `before` is None where there was none, `after` where there is none."""

    path: str
    before: Node | None
    after: Node | None
    cause: Cause = Cause.DIRECT


def names(path: str) -> list[str]:
    """What leads from the root to a node."""
    return path[1:].split("/") if path != "/" else []


def parent(path: str) -> str:
    """The path above; the root is above itself."""
    return path[: path.rfind("/")] or "/"


def find(root: Node, path: str) -> Node | None:
    """The node at an absolute path."""
    if path == "/":
        return root
    node: Node | None = root
    for name in path[1:].split("/"):
        node = node.children.get(name)  # type: ignore[union-attr]  # the loop ends where it is None
        if node is None:
            return None
    return node


def nearest(root: Node, path: str) -> tuple[str, Node]:
    """The lowest node that exists on the way to a path."""
    node, depth = root, 0
    steps = names(path)
    for name in steps:
        below = node.children.get(name)
        if below is None:
            break
        node, depth = below, depth + 1
    return "/" + "/".join(steps[:depth]), node


def placed(root: Node, path: str, node: Node, version: int, epoch: int) -> Node:
    """The tree with a node at a path whose parent exists; `version` counts as a new listing where names were added."""
    steps = names(path)
    parents = [root]
    for name in steps[:-1]:
        parents.append(parents[-1].children[name])
    for above, name in zip(reversed(parents), reversed(steps), strict=False):
        own = _own(above, epoch)
        if name not in own.children:
            own.listing = version
        own.children[name] = node
        if own is above:
            return root
        node = own
    return node


def removed(root: Node, path: str, version: int, epoch: int) -> Node:
    """The tree without a node that exists and is not the root."""
    above = parent(path)
    node = find(root, above)
    assert node is not None, path
    own = _own(node, epoch)
    del own.children[path[path.rfind("/") + 1 :]]
    own.listing = version
    return root if own is node else placed(root, above, own, version, epoch)


def _own(node: Node, epoch: int) -> Node:
    """The node where it is of this epoch, else one like it that is."""
    if node.epoch == epoch:
        return node
    return Node(node.value, node.permissions, node.version, epoch, node.children.copy(), node.listing)


def walk(path: str, node: Node) -> Iterator[tuple[str, Node]]:
    """A node and all beneath it, each before its children."""
    waiting = [(path, node)]
    while waiting:
        path, node = waiting.pop()
        yield path, node
        base = "" if path == "/" else path
        waiting.extend((f"{base}/{name}", child) for name, child in reversed(node.children.items()))


def differences(path: str, before: Node | None, after: Node | None) -> Iterator[Change]:
    """What changed at a path and beneath it, each before its children. Costs what differs, not what there is."""
    waiting = [(path, before, after, Cause.DIRECT)]
    while waiting:
        path, before, after, cause = waiting.pop()
        if before is after:
            continue
        if before is None or after is None or before.version != after.version:
            yield Change(path, before, after, cause)
        base = "" if path == "/" else path
        old = before.children if before else _NONE
        new = after.children if after else _NONE
        below = Cause.REMOVED_WITH if after is None else Cause.DIRECT
        waiting.extend((f"{base}/{name}", old.get(name), new.get(name), below) for name in reversed({**old, **new}))
