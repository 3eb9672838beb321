"""The page of one class."""

from __future__ import annotations

from domzero.idl.graph import Graph, Method
from domzero.idl.model import MISSING, RW, Class, Durability, Field
from domzero.sdkgen.reference import links
from domzero.sdkgen.reference.drawing import neighbourhood
from domzero.sdkgen.reference.messages import explicit_message, implicit_messages
from domzero.sdkgen.reference.parts import ages, code, page, row, section, shown_value, table
from domzero.sdkgen.reference.relations import Relation
from domzero.sdkgen.reference.tree import Child, Node, node


def class_page(
    graph: Graph, cls: Class, methods: list[Method], relations: list[Relation], unanswered: frozenset[str]
) -> Node:
    """All about a class: fields, messages of both kinds, and its neighbours. `unanswered` are names of messages."""
    explicit = [method for method in methods if method.message.implicit is None]
    implicit = [method for method in methods if method.message.implicit is not None]
    return page(
        graph,
        links.class_page(cls.name),
        cls.name,
        node("p", cls.doc, class_="lead"),
        node("p", *ages(cls)),
        *(node("p", text) for text in _remarks(cls)),
        _fields(cls),
        _messages("Messages", "messages", [explicit_message(it, it.name not in unanswered) for it in explicit]),
        _messages("Implicit messages", "implicit", [_on_implicit(), implicit_messages(implicit)] if implicit else []),
        _neighbours(cls, relations),
    )


def _remarks(cls: Class) -> list[str]:
    texts = []
    if cls.durability is Durability.NONE:
        texts.append("There are no stored objects of this class: it groups messages, or names a struct.")
    if not cls.emits_events:
        texts.append("Changes of these objects are not among the events.")
    return texts


def _fields(cls: Class) -> Node | None:
    if not cls.fields:
        return None
    columns = ("Field", "Type", "Qualifier", "Default", "Roles", "Release", "Description")
    rows = (_field_row(field) for field in cls.fields)
    return section("Fields", "fields", table(columns, rows, f"Fields of {cls.name}"))


def _field_row(field: Field) -> Node:
    return row(
        f"field-{field.name}",
        code(field.name),
        links.shown_type(field.type),
        field.qualifier.value,
        "–" if field.default is MISSING else code(shown_value(field.default)),
        _field_roles(field),
        ages(field),
        [field.doc, *_field_remarks(field)],
    )


def _field_roles(field: Field) -> list[Child]:
    words: list[Child] = ["read: ", links.role_link(field.getter_role)]
    if field.qualifier is RW:
        words += [node("br"), "set: ", links.role_link(field.setter_role)]
        if field.entry_role is not None:
            words += [node("br"), "single entries: ", links.role_link(field.entry_role)]
    return words


def _field_remarks(field: Field) -> list[Child]:
    words: list[Child] = []
    if field.inverse is not None:
        cls, _, name = field.inverse.partition(".")
        words += [" The other side of ", links.link(links.field_at(cls, name), field.inverse), "."]
    if field.volatile:
        words.append(" A measurement: it may be older after a crash.")
    return words


def _messages(heading: str, anchor: str, content: list[Node]) -> Node | None:
    return section(heading, anchor, *content) if content else None


def _on_implicit() -> Node:
    return node(
        "p", "Derived from the fields; ", links.link(f"{links.CONVENTIONS}#implicit", "what each kind does"),
        " is the same for all classes.",
    )  # fmt: skip


def _neighbours(cls: Class, relations: list[Relation]) -> Node | None:
    if not relations:
        return None
    rows = (
        row(None, links.link(links.field_at(it.source, it.field), f"{it.source}.{it.field}"),
            links.link(links.class_page(it.target), it.target))
        for it in relations
    )  # fmt: skip
    return section(
        "Relations",
        "relations",
        neighbourhood(cls.name, relations),
        table(("Field", "refers to"), rows, f"References to and from {cls.name}"),
    )
