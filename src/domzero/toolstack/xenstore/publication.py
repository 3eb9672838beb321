"""Makes the store say what a guest is to find in it, and no more of what was said before."""

from __future__ import annotations

from collections.abc import Mapping

from domzero.host.xenstore.protocol import Nodes, Xenstore, home
from domzero.toolstack.xenstore.nodes import Node

LISTED = ("device/vbd", "device/vif")
"""Directories below a domain's that hold nothing but what is published."""


def publish(xenstore: Xenstore, domid: int, wanted: Mapping[str, Node], published: Mapping[str, Node]) -> None:
    """Change what differs, all at once. What the guest has made of its own nodes stays where nothing new is said.

    Raises `XenstoreError`; then nothing has changed.
    """
    gone = [path for path in published if path not in wanted]
    changed = {path: node for path, node in wanted.items() if published.get(path) != node}
    if not gone and not changed:
        return
    with xenstore.transaction() as nodes:
        for path in sorted(gone, reverse=True):
            if nodes.exists(path):
                nodes.remove(path)
        for path, node in changed.items():
            nodes.write(path, node.value)
            if path not in published:
                nodes.set_permissions(path, node.permissions(domid))


def found(nodes: Nodes, domid: int, wanted: Mapping[str, Node]) -> dict[str, Node]:
    """What an earlier daemon has published of a domain, as far as that can be told.

    Nodes that are the guest's to change count as they are: who wrote them last is not known.
    """
    earlier: dict[str, Node] = {}
    for path, node in wanted.items():
        if nodes.exists(path):
            earlier[path] = node if node.is_guests else Node(nodes.read(path))
    for place in (f"{home(domid)}/{directory}" for directory in LISTED):
        if nodes.exists(place):
            earlier |= {path: Node(b"") for name in nodes.directory(place) if (path := f"{place}/{name}") not in wanted}
    return earlier


def withdraw(xenstore: Xenstore, domid: int, machine: str) -> None:
    """A domain has ended: its connections do, and nothing tells of it any more, nor of its machine at that path.

    Without a path the machine stays: it has another domain by now. Raises `XenstoreError`.
    """
    if xenstore.is_introduced(domid):
        xenstore.release(domid)
    with xenstore.transaction() as nodes:
        for path in (home(domid), machine):
            if path and nodes.exists(path):
                nodes.remove(path)
