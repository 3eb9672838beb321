"""The pages that list things across classes: the index, enums, errors, roles, samples."""

from __future__ import annotations

from collections.abc import Mapping

from domzero.idl.graph import Graph
from domzero.idl.model import Enum, Role
from domzero.sdkgen.reference import links
from domzero.sdkgen.reference.parts import TITLE, ages, code, page, row, section, table
from domzero.sdkgen.reference.tree import Child, Node, joined, node


def index_page(graph: Graph, version: str, *, with_pdf: bool) -> Node:
    """Where one begins: every class with what it stands for. `with_pdf` tells whether the PDF lies beside the pages."""
    rows = (
        row(None, links.link(links.class_page(cls.name), cls.name), cls.doc, ages(cls))
        for cls in sorted(graph.classes.values(), key=lambda cls: cls.name.lower())
    )
    explicit = sum(method.message.implicit is None for method in graph.methods.values())
    return page(
        graph,
        links.INDEX,
        TITLE,
        node("p", f"The XenServer management API as domzero {version} serves it: {len(graph.classes)} classes, "
             f"{explicit} messages written for them and {len(graph.methods) - explicit} derived from their fields, "
             f"{len(graph.errors)} errors.", class_="lead"),
        node("p", "New here? ", links.link(links.SAMPLES, "A first session"), " shows a program, ",
             links.link(links.CONVENTIONS, "Conventions"), " tells what holds for all classes."),
        node("p", links.link(links.PDF, "The whole reference as one PDF"), ".") if with_pdf else None,
        section("Classes", "classes", table(("Class", "Stands for", "Release"), rows, "All classes")),
    )  # fmt: skip


def enums_page(graph: Graph) -> Node:
    """Every enum with its values."""
    return page(graph, links.ENUMS, "Enums", *(_enum(graph.enums[name]) for name in sorted(graph.enums, key=str.lower)))


def _enum(enum: Enum) -> Node:
    rows = (row(None, code(value), meaning) for value, meaning in enum.values.items())
    values = table(("Value", "Meaning"), rows, f"Values of {enum.name}")
    return section(enum.name, f"enum-{enum.name}", node("p", enum.doc), values)


def errors_page(graph: Graph) -> Node:
    """Every error with its parameters, and the messages that name it."""
    raised: dict[str, list[Child]] = {}
    for method in graph.methods.values():
        for error in method.message.errors:
            where = links.message_at(method.cls.name, method.message.name)
            raised.setdefault(error, []).append(links.link(where, method.name))
    rows = (
        row(f"error-{error.code}", code(error.code), joined(", ", map(code, error.params)) or "–", error.doc,
            joined(", ", raised.get(error.code, [])) or "–")
        for error in sorted(graph.errors.values(), key=lambda error: error.code)
    )  # fmt: skip
    return page(
        graph,
        links.ERRORS,
        "Errors",
        node("p", "A failed call answers with a list of texts: the error's code, then its parameters in this order."),
        table(("Code", "Parameters", "Meaning", "Named by"), rows, "All errors"),
    )


def roles_page(graph: Graph) -> Node:
    """The roles, least first, each with the explicit messages it is the least one for."""
    ranked = sorted(graph.roles.values(), key=lambda role: role.rank)
    return page(
        graph,
        links.ROLES,
        "Roles",
        node("p", "Each role may do all that the ones above it on this page may."),
        *(_role(graph, role) for role in ranked),
    )


def _role(graph: Graph, role: Role) -> Node:
    allowed = (
        node("li", links.link(links.message_at(method.cls.name, method.message.name), method.name))
        for method in sorted(graph.methods.values(), key=lambda method: method.name.lower())
        if method.message.implicit is None and method.message.least_role == role.name
    )
    return section(
        role.name,
        f"role-{role.name}",
        node("p", role.doc),
        node("p", "uuid ", code(role.uuid)),
        node("details", node("summary", f"Messages that need at least {role.name}"), node("ul", *allowed)),
    )


def samples_page(graph: Graph, programs: Mapping[str, str]) -> Node:
    """Small programs, shown and to be downloaded. `programs` maps their files' names to their text."""
    described = {
        "first-session.py": "A machine from a template, suspended and resumed, a snapshot as a task, and events, with "
        "the official Python binding, the package XenAPI. Put the host's address and root's password in.",
        "first-call.sh": "The same door with nothing but curl: JSON-RPC at /jsonrpc. Look at the certificate's "
        "fingerprint, which the host prints at its start, before you trust a connection.",
    }
    return page(
        graph,
        links.SAMPLES,
        "Samples",
        *(
            section(name, f"sample-{name}", node("p", described.get(name, "")), node("pre", code(text)),
                    node("p", links.link(name, f"Download {name}")))
            for name, text in programs.items()
        ),
        section("Where to read on", "more", node("ul", *(node("li", *words) for words in _further(graph)))),
    )  # fmt: skip


def _further(graph: Graph) -> list[list[Child]]:
    recommended = {
        "VM": "the life of a machine.",
        "task": "what asynchronous calls leave behind.",
        "event": "how to learn of changes without asking all the time.",
    }
    classes: list[list[Child]] = [
        [links.link(links.class_page(name), name), f": {why}"]
        for name, why in recommended.items()
        if name in graph.classes
    ]
    return [*classes, [links.link(links.ERRORS, "Errors"), " and ", links.link(links.ROLES, "roles"), "."]]
