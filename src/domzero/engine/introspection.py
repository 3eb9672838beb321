"""What a client may ask about the API itself."""

from __future__ import annotations

from collections.abc import Collection

from domzero.engine.binding import is_removed
from domzero.idl.graph import Graph

LIST_METHODS = "system.listMethods"
IS_ALIVE = "system.isAlive:"
"""A watchdog's call is this and anything after it."""
ASYNC = "Async."


def method_names(graph: Graph, not_implemented: Collection[str]) -> tuple[str, ...]:
    """Every call that this server answers, `Async` forms included, sorted: for `system.listMethods` and
    `host.list_methods`. What is removed or not implemented is not among them.
    """
    names = [LIST_METHODS]
    for name, method in graph.methods.items():
        if name in not_implemented or is_removed(method.message):
            continue
        names.append(name)
        if method.message.asynchronous:
            names.append(ASYNC + name)
    return tuple(sorted(names))
