"""The whole reference as files in memory: what `domzero reference` writes down and the host serves at /docs/."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files

from domzero.idl.graph import Graph, Method
from domzero.sdkgen.reference import links
from domzero.sdkgen.reference.classes import class_page
from domzero.sdkgen.reference.conventions import conventions_page
from domzero.sdkgen.reference.drawing import diagram_page
from domzero.sdkgen.reference.lists import enums_page, errors_page, index_page, roles_page, samples_page
from domzero.sdkgen.reference.relations import Relation, relations
from domzero.sdkgen.reference.search import search_index
from domzero.sdkgen.reference.tree import Node, as_html

HTML = "text/html; charset=utf-8"
CSS = "text/css; charset=utf-8"
SCRIPT = "text/javascript; charset=utf-8"
TEXT = "text/plain; charset=utf-8"
PDF = "application/pdf"

SAMPLES = {"first-session.py": "first-session.txt", "first-call.sh": "first-call.txt"}
"""Programs to download: name → file among this package's own."""

_FILES = files("domzero.sdkgen.reference") / "files"
_NAME = re.compile(r"\w+", re.ASCII)


@dataclass(frozen=True, slots=True)
class Document:
    """One file of the reference."""

    media_type: str
    content: bytes


def build_site(
    graph: Graph, version: str, unanswered: frozenset[str] = frozenset(), *, with_pdf: bool = False
) -> dict[str, Document]:
    """Every file by its name; there are no directories. The same graph gives the same bytes.

    `unanswered` names explicit messages that the server does not carry out; with `with_pdf` the pages link to the PDF,
    which the caller puts beside them. Raises `ValueError` for a class whose
    name is no identifier, and thus no file's name either.
    """
    for name in graph.classes:
        if not _NAME.fullmatch(name):
            raise ValueError(f"the class {name!r} cannot name a page")
    trees = {**_pages(graph, unanswered), links.INDEX: index_page(graph, version, with_pdf=with_pdf)}
    pages = {name: Document(HTML, as_html(tree)) for name, tree in trees.items()}
    return {
        **pages,
        **{name: Document(TEXT, text.encode()) for name, text in _samples().items()},
        "style.css": Document(CSS, (_FILES / "style.css").read_bytes()),
        "search.js": Document(SCRIPT, (_FILES / "search.js").read_bytes()),
        "search-index.js": Document(SCRIPT, search_index(graph)),
    }


def _pages(graph: Graph, unanswered: frozenset[str]) -> dict[str, Node]:
    all_relations = list(relations(graph))
    methods: dict[str, list[Method]] = {name: [] for name in graph.classes}
    for method in graph.methods.values():
        methods[method.cls.name].append(method)
    return {
        links.CONVENTIONS: conventions_page(graph),
        links.DIAGRAM: diagram_page(graph, all_relations),
        links.ENUMS: enums_page(graph),
        links.ERRORS: errors_page(graph),
        links.ROLES: roles_page(graph),
        links.SAMPLES: samples_page(graph, _samples()),
        **{
            links.class_page(name): class_page(graph, cls, methods[name], _about(name, all_relations), unanswered)
            for name, cls in graph.classes.items()
        },
    }


def _about(name: str, all_relations: list[Relation]) -> list[Relation]:
    return [relation for relation in all_relations if name in (relation.source, relation.target)]


def _samples() -> Mapping[str, str]:
    return {name: (_FILES / file).read_text("utf-8") for name, file in SAMPLES.items()}
