"""Pieces that several pages are made of: the frame of a page, tables, releases, defaults."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from domzero.idl.graph import Graph
from domzero.sdkgen.reference import links
from domzero.sdkgen.reference.tree import Child, Node, append, node

TITLE = "XenAPI reference"
PAGES = (
    (links.INDEX, "Classes"),
    (links.DIAGRAM, "Diagram"),
    (links.CONVENTIONS, "Conventions"),
    (links.ENUMS, "Enums"),
    (links.ERRORS, "Errors"),
    (links.ROLES, "Roles"),
    (links.SAMPLES, "Samples"),
)


class Aged(Protocol):
    """Whatever came with a release and may have gone with another."""

    @property
    def since(self) -> str: ...
    @property
    def deprecated(self) -> str | None: ...
    @property
    def removed(self) -> str | None: ...


def page(graph: Graph, url: str, heading: str, *content: Child) -> Node:
    """A whole page: head, navigation with search, the list of classes, and the content under its heading."""
    head = node(
        "head",
        node("meta", charset="utf-8"),
        node("meta", name="viewport", content="width=device-width, initial-scale=1"),
        node("meta", name="color-scheme", content="light dark"),
        node("title", heading if heading == TITLE else f"{heading} – {TITLE}"),
        node("link", rel="stylesheet", href="style.css"),
        node("script", src="search.js", defer="defer"),
    )
    body = node(
        "body",
        node("a", "Skip to the content", class_="skip", href="#content"),
        _header(url),
        node(
            "div",
            _class_list(graph, url),
            node("main", node("h1", heading), *content, id="content", tabindex="-1"),
            class_="columns",
        ),
    )
    return node("html", head, body, lang="en")


def _header(url: str) -> Node:
    items = (node("li", _menu_link(target, text, url)) for target, text in PAGES)
    return node(
        "header",
        node("a", TITLE, href=links.INDEX, class_="title"),
        node("nav", node("ul", *items), aria_label="Pages"),
        node(
            "form",
            node("label", "Search", for_="search"),
            node("input", id="search", type="search", autocomplete="off", placeholder="VM.start, memory, SR_FULL …"),
            node("p", id="search-count", role="status"),
            node("ul", id="search-results", hidden="hidden"),
            id="search-form", role="search", action=links.INDEX, hidden="hidden",
        ),
    )  # fmt: skip


def _class_list(graph: Graph, url: str) -> Node:
    names = sorted(graph.classes, key=str.lower)
    items = (node("li", _menu_link(links.class_page(name), name, url)) for name in names)
    return node("nav", node("ul", *items), class_="classes", aria_label="All classes")


def _menu_link(target: str, text: str, current: str) -> Node:
    return node("a", text, href=target, aria_current="page" if target == current else None)


def section(heading: str, anchor: str, *content: Child) -> Node:
    """A part of a page that can be linked to."""
    return node("section", node("h2", heading), *content, id=anchor)


def table(columns: Sequence[str], rows: Iterable[Node], caption: str) -> Node:
    """A table that scrolls by itself where the window is narrow."""
    head = node("thead", node("tr", *(node("th", column, scope="col") for column in columns)))
    whole = node("table", node("caption", caption), head, node("tbody", *rows))
    return node("div", whole, class_="scroll", role="region", aria_label=caption, tabindex="0")


def row(anchor: str | None, name: Child, *cells: Child | Sequence[Child]) -> Node:
    """A row of a table; its first cell is its heading."""
    made = node("tr", node("th", name, scope="row"), id=anchor)
    for cell in cells:
        append(made, node("td", *([cell] if isinstance(cell, (str, Node, type(None))) else cell)))
    return made


def code(text: str) -> Node:
    """Text as a program would spell it."""
    return node("code", text)


def ages(thing: Aged) -> list[Child]:
    """With which release something came, was deprecated, went."""
    words: list[Child] = [node("span", f"since {thing.since}", class_="since")]
    if thing.deprecated:
        words += [" ", node("strong", f"deprecated in {thing.deprecated}", class_="deprecated")]
    if thing.removed:
        words += [" ", node("strong", f"removed in {thing.removed}", class_="removed")]
    return words


def shown_value(value: Any) -> str:
    """A default as JSON-RPC would carry it."""
    return json.dumps(value, ensure_ascii=False)
