"""Where things are in the reference: all pages lie in one directory, so every link is a page's name and a fragment."""

from __future__ import annotations

from domzero.idl.types import EnumOf, MapOf, OptionOf, RecordOf, RefTo, SetOf, Type
from domzero.sdkgen.reference.tree import Child, Node, append, node

INDEX = "index.html"
PDF = "reference.pdf"
CONVENTIONS = "conventions.html"
DIAGRAM = "diagram.html"
ENUMS = "enums.html"
ERRORS = "errors.html"
ROLES = "roles.html"
SAMPLES = "samples.html"


def class_page(name: str) -> str:
    """The page of a class."""
    return f"class-{name}.html"


def field_at(cls: str, name: str) -> str:
    """A field's row."""
    return f"{class_page(cls)}#field-{name}"


def message_at(cls: str, name: str) -> str:
    """A message's section or, for an implicit one, row."""
    return f"{class_page(cls)}#message-{name}"


def enum_at(name: str) -> str:
    """An enum's section."""
    return f"{ENUMS}#enum-{name}"


def error_at(code: str) -> str:
    """An error's row."""
    return f"{ERRORS}#error-{code}"


def role_at(name: str) -> str:
    """A role's section."""
    return f"{ROLES}#role-{name}"


def implicit_at(kind: str) -> str:
    """Where a kind of implicit messages is described."""
    return f"{CONVENTIONS}#implicit-{kind}"


def link(url: str, text: str) -> Node:
    """A link around a text."""
    return node("a", text, href=url)


def role_link(name: str) -> Node:
    """A role's name, leading to what it may do."""
    return node("a", name, href=role_at(name), class_="role")


def shown_type(type_: Type) -> Node:
    """A type in the API's notation, its classes and enums being links."""
    return append(node("span", class_="type"), *_words(type_))


def _words(type_: Type) -> list[Child]:
    match type_:
        case RefTo(name):
            return [link(class_page(name), name), " ref"]
        case RecordOf(name):
            return [link(class_page(name), name), " record"]
        case EnumOf(name):
            return [link(enum_at(name), name)]
        case SetOf(item):
            return [*_words(item), " set"]
        case OptionOf(item):
            return [*_words(item), " option"]
        case MapOf(key, value):
            return ["(", *_words(key), " → ", *_words(value), ") map"]
        case _:
            return [str(type_)]
