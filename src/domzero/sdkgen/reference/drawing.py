"""Diagrams of classes as SVG inside a page; colours come from the style sheet, so that they follow light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from domzero.idl.graph import Graph
from domzero.sdkgen.reference import links
from domzero.sdkgen.reference.layout import columns
from domzero.sdkgen.reference.parts import page, row, section, table
from domzero.sdkgen.reference.relations import Relation
from domzero.sdkgen.reference.tree import Node, append, node

BOX_WIDTH, BOX_HEIGHT = 170, 28
COLUMN_STEP, ROW_STEP = 270, 44
MARGIN = 12
LOOSE_PER_ROW = 6
"""How many of the classes without any relation stand in one row below the diagram."""

Places = Mapping[str, tuple[float, float]]
"""The upper left corner of each class's box."""


def diagram_page(graph: Graph, relations: Sequence[Relation]) -> Node:
    """The page with the diagram of all classes, and the same as a table."""
    related = {name for relation in relations for name in (relation.source, relation.target)}
    names = [name for name in graph.classes if name in related]
    loose = [name for name in graph.classes if name not in related]
    placed = columns(names, [(relation.source, relation.target) for relation in relations])
    rows = (
        row(
            None,
            links.link(links.class_page(it.source), it.source),
            links.link(links.field_at(it.source, it.field), it.field),
            links.link(links.class_page(it.target), it.target),
        )
        for it in relations
    )
    return page(
        graph,
        links.DIAGRAM,
        "Diagram of the classes",
        node("p", "A line leads from the class whose field holds a reference to the class referred to, where it ends "
             "in a dot. Point at a line to read the names of its fields; the table below says the same in words."),
        node("div", _drawing(_with_loose(_places(placed), loose), relations, "Diagram of all classes"),
             class_="scroll", role="region", aria_label="Diagram", tabindex="0"),
        section("All references", "references", table(("Class", "Field", "refers to"), rows, "References")),
    )  # fmt: skip


def neighbourhood(name: str, relations: Sequence[Relation]) -> Node:
    """A class in the middle, those that refer to it on its left, those it refers to on its right.

    A class that does both stands on the right.
    """
    right = sorted({relation.target for relation in relations if relation.source == name} - {name})
    left = sorted({relation.source for relation in relations if relation.target == name} - {name, *right})
    drawing = _drawing(_places([left, [name], right]), relations, f"{name} and its neighbours")
    return node("div", drawing, class_="scroll")


def _places(placed: Sequence[Sequence[str]]) -> Places:
    """Boxes in columns, each column centred."""
    tallest = max(len(column) for column in placed)
    return {
        name: (MARGIN + at * COLUMN_STEP, MARGIN + (down + (tallest - len(column)) / 2) * ROW_STEP)
        for at, column in enumerate([column for column in placed if column])
        for down, name in enumerate(column)
    }


def _with_loose(places: Places, loose: Sequence[str]) -> Places:
    below = max((y for _, y in places.values()), default=-ROW_STEP) + 2 * ROW_STEP
    rest = {
        name: (MARGIN + at % LOOSE_PER_ROW * (BOX_WIDTH + 30), below + at // LOOSE_PER_ROW * ROW_STEP)
        for at, name in enumerate(loose)
    }
    return {**places, **rest}


def _drawing(places: Places, relations: Sequence[Relation], title: str) -> Node:
    width = max((x for x, _ in places.values()), default=0) + BOX_WIDTH + MARGIN
    height = max((y for _, y in places.values()), default=0) + BOX_HEIGHT + MARGIN
    fields: dict[tuple[str, str], list[str]] = {}
    for relation in relations:
        fields.setdefault((relation.source, relation.target), []).append(relation.field)
    drawn = node(
        "svg", node("title", title), viewBox=f"0 0 {width:g} {height:g}", width=f"{width:g}", height=f"{height:g}",
        role="group", aria_label=title, class_="diagram",
    )  # fmt: skip
    lines = [_line(places[one], places[other], one, other, names) for (one, other), names in fields.items()
             if one != other]  # fmt: skip
    return append(drawn, *lines, *(_box(name, *place) for name, place in places.items()))


def _box(name: str, x: float, y: float) -> Node:
    shape = node("rect", x=f"{x:g}", y=f"{y:g}", width=str(BOX_WIDTH), height=str(BOX_HEIGHT), rx="4")
    label = node("text", name, x=f"{x + BOX_WIDTH / 2:g}", y=f"{y + BOX_HEIGHT / 2:g}")
    return node("a", shape, label, href=links.class_page(name))


def _line(start: tuple[float, float], end: tuple[float, float], one: str, other: str, fields: Sequence[str]) -> Node:
    """A curve between the sides that face each other, with a dot where it arrives."""
    forwards = end[0] >= start[0]
    from_x = start[0] + (BOX_WIDTH if forwards else 0)
    to_x = end[0] + (0 if end[0] > start[0] else BOX_WIDTH)
    from_y, to_y = start[1] + BOX_HEIGHT / 2, end[1] + BOX_HEIGHT / 2
    out = COLUMN_STEP / 3 if forwards else -COLUMN_STEP / 3
    into = -COLUMN_STEP / 3 if end[0] > start[0] else COLUMN_STEP / 3
    path = f"M{from_x:g} {from_y:g}C{from_x + out:g} {from_y:g} {to_x + into:g} {to_y:g} {to_x:g} {to_y:g}"
    return node(
        "g",
        node("title", f"{one} → {other}: {', '.join(fields)}"),
        node("path", d=path),
        node("circle", cx=f"{to_x:g}", cy=f"{to_y:g}", r="3"),
        class_="relation",
    )
