"""Layered drawing of a directed graph: a column for each node, and an order within the columns.

The steps are the usual ones (Sugiyama, Tagawa, Toda 1981): edges that close a circle are ignored, each node stands
one column right of its rightmost predecessor, and the order follows the mean place of the neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

SWEEPS = 8
"""How often the order of all columns is improved; more changes little."""

Edge = tuple[str, str]


def columns(nodes: Sequence[str], edges: Iterable[Edge]) -> list[list[str]]:
    """The nodes of each column from top to bottom, columns from left to right; the same input gives the same result.

    Edges between nodes that are not given, and from a node to itself, do not count.
    """
    known = set(nodes)
    proper = sorted({(one, other) for one, other in edges if one != other and one in known and other in known})
    depth = _depths(nodes, _without_circles(nodes, proper))
    placed: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for name in nodes:
        placed[depth[name]].append(name)
    for sweep in range(SWEEPS):
        _improve(placed, proper, leftwards=sweep % 2 == 1)
    return placed


def _without_circles(nodes: Sequence[str], edges: Sequence[Edge]) -> list[Edge]:
    """The edges that do not lead back to a node on the way of a depth-first walk; they come in topological order."""
    followers: dict[str, list[str]] = {name: [] for name in nodes}
    for one, other in edges:
        followers[one].append(other)
    state: dict[str, bool] = {}  # False while the walk is below the node, True afterwards
    kept: list[Edge] = []

    def walk(name: str) -> None:
        state[name] = False
        for other in followers[name]:
            if other not in state:
                walk(other)
            if state[other]:
                kept.append((name, other))
        state[name] = True

    for name in nodes:
        if name not in state:
            walk(name)
    return kept[::-1]


def _depths(nodes: Sequence[str], edges: Sequence[Edge]) -> dict[str, int]:
    """The length of the longest way to each node. No way is longer than the number of nodes."""
    depth = dict.fromkeys(nodes, 0)
    for _ in nodes:
        changed = False
        for one, other in edges:
            if depth[other] <= depth[one]:
                depth[other] = depth[one] + 1
                changed = True
        if not changed:
            break
    return depth


def _improve(placed: list[list[str]], edges: Sequence[Edge], *, leftwards: bool) -> None:
    neighbours: dict[str, list[str]] = {}
    for one, other in edges:
        neighbours.setdefault(one, []).append(other)
        neighbours.setdefault(other, []).append(one)
    place = _relative_places(placed)
    for column in reversed(placed) if leftwards else placed:
        column.sort(key=lambda name: fmean([place[other] for other in neighbours.get(name, ())] or [place[name]]))
        place.update(_relative_places([column]))


def _relative_places(placed: Sequence[Sequence[str]]) -> dict[str, float]:
    """How far down its column each node stands, from 0 to 1."""
    return {name: (at + 0.5) / len(column) for column in placed for at, name in enumerate(column)}
