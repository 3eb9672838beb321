"""A small datamodel whose texts try to break out of whatever page they are put into."""

from __future__ import annotations

from itertools import count

from domzero.idl.graph import Graph
from domzero.idl.model import CONSTRUCTOR, RUNTIME, RW, Class, Durability, Enum, Error, Field, Message, Param, Role
from domzero.idl.types import INT, STRING, STRING_MAP, VOID, EnumOf, MapOf, OptionOf, RecordOf, RefTo, SetOf

_numbers = count(1)
texts: list[str] = []
"""Every hostile text, in the order of making."""


def hostile() -> str:
    """A text that no other is equal to."""
    text = f"""</p><script>alert({next(_numbers)})</script>"><img src='x' onerror="y()"> &lt; &amp;amp; ]]> -->“”"""
    texts.append(text)
    return text


ROLES = (
    Role("guest", 0, "00000000-0000-0000-0000-000000000001", hostile()),
    Role("owner", 1, "00000000-0000-0000-0000-000000000002", hostile()),
)
ERRORS = (Error("TOO_BIG", ("size", hostile()), hostile()), Error("NEVER_NAMED", (), hostile()))

SHELF = Class(
    "Shelf",
    hostile(),
    hostile(),
    fields=(
        Field("uuid", STRING, RUNTIME, "one", hostile(), getter_role="guest"),
        Field("books", SetOf(RefTo("book")), RUNTIME, "one", hostile(), inverse="book.shelf", getter_role="guest"),
        Field("size", INT, CONSTRUCTOR, "one", hostile(), default=3, getter_role="guest", volatile=True),
    ),
    messages=(
        Message(
            "tidy",
            (
                Param("self", RefTo("Shelf"), hostile()),
                Param("how", MapOf(STRING, EnumOf("manner")), hostile(), default={"a": hostile()}),
            ),
            OptionOf(RecordOf("book")),
            "two",
            hostile(),
            result_doc=hostile(),
            errors=("TOO_BIG",),
            least_role="owner",
            deprecated=hostile(),
        ),
        Message("count", (), INT, "one", hostile(), least_role="guest", asynchronous=False, session=False),
    ),
    enums=(Enum("manner", hostile(), {"gently": hostile(), "quickly": hostile()}),),
    constructor_role="owner",
    destructor_role="owner",
    reader_role="guest",
)
BOOK = Class(
    "book",
    hostile(),
    "one",
    fields=(
        Field("uuid", STRING, RUNTIME, "one", hostile(), getter_role="guest"),
        Field("name_label", STRING, RW, "one", hostile(), default=hostile(), setter_role="owner", getter_role="guest"),
        Field("shelf", RefTo("Shelf"), RW, "one", hostile(), setter_role="owner", getter_role="guest"),
        Field("sequel", RefTo("book"), RW, "one", hostile(), setter_role="owner", getter_role="guest"),
        Field("notes", STRING_MAP, RW, "one", hostile(), default={}, setter_role="owner", entry_role="guest",
              getter_role="guest", removed=hostile()),
    ),
    has_get_by_name_label=True,
    reader_role="guest",
)  # fmt: skip
TALK = Class(
    "talk",
    hostile(),
    "one",
    fields=(),
    messages=(Message("say", (Param("what", STRING, "\0\x1b\ufffe \ud800."),), VOID, "one", hostile(),
                      least_role="guest"),),
    durability=Durability.NONE,
    has_getters=False,
    has_get_all=False,
    emits_events=False,
)  # fmt: skip

GRAPH = Graph((SHELF, BOOK, TALK), ERRORS, ROLES)
