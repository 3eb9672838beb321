"""How many messages are kept."""

from __future__ import annotations

from domzero.datamodel.graph import GRAPH
from domzero.engine.row import Row
from domzero.idl.records import Layout, Record
from domzero.toolstack.alerts import superfluous
from domzero.toolstack.message import CLASSES

LAYOUT = Layout(GRAPH.classes["message"])


def rows(*created: int) -> list[Row]:
    return [Row(f"OpaqueRef:{number}", Record(LAYOUT, LAYOUT.defaults), number, number) for number in created]


def test_the_oldest_go_first() -> None:
    many = rows(5, 2, 9, 1, 7)
    assert [row.created for row in superfluous(many, 3)] == [1, 2]
    assert superfluous(many, 5) == superfluous(many, 10) == []
    assert len(superfluous(many, 0)) == 5


def test_every_word_stands_for_a_class() -> None:
    assert CLASSES.keys() == GRAPH.enums["cls"].values.keys()
    assert set(CLASSES.values()) <= GRAPH.classes.keys()
