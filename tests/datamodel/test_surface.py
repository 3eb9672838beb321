"""The API is pinned as text, so that a change of it is seen in review.

After a deliberate change: `python -m tests.datamodel.test_surface` writes the file anew; read the difference.
"""

from __future__ import annotations

from pathlib import Path

from domzero.datamodel.graph import GRAPH
from domzero.idl.surface import surface

PINNED = Path(__file__).with_name("surface.txt")


def test_surface_is_the_pinned_one() -> None:
    assert list(surface(GRAPH)) == PINNED.read_text().splitlines()


def test_the_whole_published_api_is_there() -> None:
    derived = [method for method in GRAPH.methods.values() if method.message.implicit]
    assert len(GRAPH.classes) == 67
    assert sum(len(cls.fields) for cls in GRAPH.classes.values()) == 845
    assert len(GRAPH.methods) - len(derived) == 479
    # The published list leaves out get_all_records_where, which every class with stored objects has.
    assert len([method for method in derived if method.message.name != "get_all_records_where"]) == 1349


if __name__ == "__main__":
    PINNED.write_text("\n".join(surface(GRAPH)) + "\n")
