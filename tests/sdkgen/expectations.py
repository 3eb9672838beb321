"""What a reference must contain, whatever the datamodel."""

from __future__ import annotations

import json
from collections.abc import Mapping

from domzero.idl.graph import Graph
from domzero.sdkgen.reference.site import Document
from tests.sdkgen.pages import Element, all_by_id, anchors, broken_links, by_id, ids, resolves


def check_pages(site: Mapping[str, Document], pages: Mapping[str, Element]) -> None:
    """Every page has one heading of the first rank, unique ids, and links that lead somewhere within the site."""
    for name, page in pages.items():
        assert [len(page.all(tag)) for tag in ("head", "h1", "main")] == [1, 1, 1], name
        assert len(page.all("head")[0].all("title")) == 1, name
        assert len(set(ids(page))) == len(ids(page)), name
    assert broken_links(site, pages) == set()


def check_complete(graph: Graph, pages: Mapping[str, Element]) -> None:
    """Every class, field, message, enum, error and role has its place, and has it once."""
    assert {name for name in pages if name.startswith("class-")} == {f"class-{name}.html" for name in graph.classes}
    listed = [cells[0].text for cells in rows(by_id(pages["index.html"], "classes"))]
    assert sorted(listed) == sorted(graph.classes)
    fields = [(f"class-{cls.name}.html", field.name) for cls in graph.classes.values() for field in cls.fields]
    assert anchors(pages, "field-") == sorted(fields)
    messages = [(f"class-{method.cls.name}.html", method.message.name) for method in graph.methods.values()]
    assert anchors(pages, "message-") == sorted(messages)
    assert anchors(pages, "enum-") == sorted(("enums.html", name) for name in graph.enums)
    assert anchors(pages, "error-") == sorted(("errors.html", code) for code in graph.errors)
    assert anchors(pages, "role-") == sorted(("roles.html", name) for name in graph.roles)


def check_messages(graph: Graph, pages: Mapping[str, Element]) -> None:
    """Explicit messages are told in full; implicit ones are rows that lead to the description of their kind."""
    places = all_by_id(pages)
    for method in graph.methods.values():
        message = method.message
        element = places[f"class-{method.cls.name}.html", f"message-{message.name}"]
        if message.implicit is None:
            assert element.tag == "section"
            assert [param.name for param in message.params] == [cells[0].text for cells in rows(element)]
            wanted = [method.name, *message.errors, message.least_role, f"since {message.since}"]
            assert [text for text in wanted if text not in element.text] == []
            assert (f"Async.{method.name}" in element.text) == message.asynchronous
        else:
            assert element.tag == "tr"
            link = element.all("a")[0]
            assert link.attributes["href"] == f"conventions.html#implicit-{message.implicit}"
            assert ("conventions.html", f"implicit-{message.implicit}") in places


def check_fields(graph: Graph, pages: Mapping[str, Element]) -> None:
    """A field's row tells its type, who sets it, the roles, the release."""
    places = all_by_id(pages)
    for cls in graph.classes.values():
        for field in cls.fields:
            cells = places[f"class-{cls.name}.html", f"field-{field.name}"].children()
            name, type_, qualifier, _, roles, release, description = (cell.text for cell in cells)
            assert (name, qualifier) == (field.name, field.qualifier.value)
            assert type_ == str(field.type).replace("->", "→").replace("enum ", "")
            assert f"read: {field.getter_role}" in roles
            assert (f"set: {field.setter_role}" in roles) == (field.qualifier.value == "RW")
            assert release.startswith(f"since {field.since}")
            assert description.startswith(field.doc)


def check_index(graph: Graph, site: Mapping[str, Document], pages: Mapping[str, Element]) -> None:
    """The search finds everything that has a name, and leads to where it is."""
    script = site["search-index.js"].content.decode("ascii")
    entries = json.loads(script.removeprefix("window.referenceIndex=").removesuffix(";\n"))
    found = sorted((kind, name) for kind, name, _, _ in entries)
    fields = [("field", f"{cls.name}.{field.name}") for cls in graph.classes.values() for field in cls.fields]
    tables = {"class": graph.classes, "message": graph.methods, "enum": graph.enums, "error": graph.errors,
              "role": graph.roles}  # fmt: skip
    assert found == sorted([*fields, *((kind, name) for kind, names in tables.items() for name in names)])
    known = {name: set(ids(page)) for name, page in pages.items()}
    assert [url for _, _, url, _ in entries if not resolves(url, "index.html", site, known)] == []


def rows(element: Element) -> list[list[Element]]:
    """The cells of the rows of all tables inside, heads left out."""
    bodies = element.all("tbody")
    return [row.children() for body in bodies for row in body.children()]
