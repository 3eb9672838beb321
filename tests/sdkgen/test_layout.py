"""Layered drawing: whatever the graph, each node has one place, and lines lead to the right where they can."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from domzero.sdkgen.reference.layout import columns

NODES = "abcdefgh"
EDGES = st.lists(st.tuples(st.sampled_from(NODES), st.sampled_from(NODES)), max_size=30)


def place(placed: list[list[str]]) -> dict[str, int]:
    return {name: at for at, column in enumerate(placed) for name in column}


def test_a_chain_takes_one_column_each() -> None:
    assert columns("cab", [("a", "b"), ("b", "c"), ("a", "c")]) == [["a"], ["b"], ["c"]]


def test_two_crossing_lines_are_uncrossed() -> None:
    assert columns("abxy", [("a", "y"), ("b", "x")]) in ([["a", "b"], ["y", "x"]], [["b", "a"], ["x", "y"]])


def test_nothing() -> None:
    assert columns("", []) == []


@given(EDGES)
def test_every_node_has_one_place(edges: list[tuple[str, str]]) -> None:
    placed = columns(NODES, edges)
    assert sorted(name for column in placed for name in column) == sorted(NODES)
    assert all(placed)


@given(EDGES)
def test_lines_of_a_graph_without_circles_lead_to_the_right(edges: list[tuple[str, str]]) -> None:
    forwards = [(min(edge), max(edge)) for edge in edges if edge[0] != edge[1]]
    at = place(columns(NODES, forwards))
    assert all(at[one] < at[other] for one, other in forwards)
