"""The tree of nodes: values that never change, so that keeping a whole tree means keeping its root.

A change makes new nodes from the root to the place of the change and shares all others with the tree before it. Whether
a part of two trees is the same is therefore seen at its top.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from domzero.wire.xenstore import Access, Permission, Permissions

NOBODY: Permissions = (Permission(0, Access.NONE),)
"""For domain 0 alone."""
_NO_CHILDREN: dict[str, Node] = {}


class Node:
    """A value, who may use it, and what is beneath. Nobody changes a node once others can see it.

    `version` tells one content (value and permissions) of a node from any other, `listing` one set of children's names.
    """

    __slots__ = ("children", "listing", "permissions", "value", "version")

    def __init__(
        self, value: bytes, permissions: Permissions, version: int, children: dict[str, Node] = _NO_CHILDREN,
        listing: int | None = None,
    ) -> None:  # fmt: skip
        self.value = value
        self.permissions = permissions
        self.version = version
        self.children = children
        self.listing = version if listing is None else listing


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


def placed(root: Node, path: str, node: Node, version: int) -> Node:
    """The tree with a node at a path whose parent exists; `version` counts as a new listing where names were added."""
    steps = names(path)
    parents = [root]
    for name in steps[:-1]:
        parents.append(parents[-1].children[name])
    for above, name in zip(reversed(parents), reversed(steps), strict=False):
        children = above.children.copy()
        listing = above.listing if name in children else version
        children[name] = node
        node = Node(above.value, above.permissions, above.version, children, listing)
    return node


def removed(root: Node, path: str, version: int) -> Node:
    """The tree without a node that exists and is not the root."""
    above = parent(path)
    node = find(root, above)
    assert node is not None, path
    children = node.children.copy()
    del children[path[path.rfind("/") + 1 :]]
    return placed(root, above, Node(node.value, node.permissions, node.version, children, version), version)


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
        old = before.children if before else _NO_CHILDREN
        new = after.children if after else _NO_CHILDREN
        below = Cause.REMOVED_WITH if after is None else Cause.DIRECT
        waiting.extend((f"{base}/{name}", old.get(name), new.get(name), below) for name in reversed({**old, **new}))
