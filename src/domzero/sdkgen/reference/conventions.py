"""The page on what holds for all classes: calls, types, qualifiers, derived messages."""

from __future__ import annotations

from domzero.idl.graph import Graph
from domzero.idl.model import Qualifier
from domzero.sdkgen.reference import links
from domzero.sdkgen.reference.parts import code, page, row, section, table
from domzero.sdkgen.reference.tree import Node, node

CALLS = (
    "A call is a POST, by XML-RPC to / or by JSON-RPC to /jsonrpc. Its first parameter is the session that a login "
    "returned, unless the message is a login itself.",
    "A message that exists “as a task” may be called as Async.Class.message too: the answer is then a reference to a "
    "task, at once, and the task tells progress, result and error.",
    "Any call can fail with the errors of sessions, rights and arguments: SESSION_INVALID, RBAC_PERMISSION_DENIED, "
    "HANDLE_INVALID, MESSAGE_PARAMETER_COUNT_MISMATCH, XMLRPC_UNMARSHAL_FAILURE, INVALID_VALUE, and with "
    "INTERNAL_ERROR when the server breaks. A message's own errors are named with it.",
    "Parameters at the end that have a default may be left out. A message that this version does not carry out "
    "answers NOT_IMPLEMENTED with its name.",
    "“Release” names the release of XenServer, or the version of its toolstack, with which a thing came. What is "
    "deprecated still works. A message that was removed answers MESSAGE_REMOVED, unless it came with the first "
    "releases, rio and miami (4.0 and 4.1), all of whose messages are served; a removed field means nothing any more.",
)

TYPES = (
    ("string", "Text in UTF-8. In XML-RPC without the control characters that XML forbids."),
    ("int", "A whole number of 64 bits with sign; XML-RPC carries it as a string, JSON-RPC as a number."),
    ("bool", "True or false."),
    ("float", "A number of double precision."),
    ("datetime", "A point in time in UTC, as YYYYMMDDTHH:MM:SSZ. 19700101T00:00:00Z stands for “never”."),
    ("enum", "One of the enum's words, as a string."),
    ("ref", "An opaque string, OpaqueRef: and a uuid; OpaqueRef:NULL refers to nothing. It lasts as long as the "
            "object."),
    ("record", "All fields of an object, as a struct."),
    ("set", "An array without order."),
    ("map", "A struct; its keys are strings whatever their type."),
    ("option", "The value, or nothing."),
    ("void", "An empty string, which means that it is done."),
)  # fmt: skip

QUALIFIERS = {
    Qualifier.RW: "Clients may set it, when an object is made and at any time afterwards.",
    Qualifier.CONSTRUCTOR: "Given when the object is made; afterwards only messages of the class change it.",
    Qualifier.RUNTIME: "The server alone sets it.",
}

IMPLICIT = (
    ("get_record", "get_record(self)", "All fields of an object at one moment."),
    ("get_by_uuid", "get_by_uuid(uuid)", "The object with a uuid. UUID_INVALID when there is none."),
    ("get_by_name_label", "get_by_name_label(label)", "All objects that bear a name; there may be none, or several."),
    ("get_all", "get_all()", "References to all objects of the class."),
    ("get_all_records", "get_all_records()", "All objects with all their fields, by reference, at one moment."),
    ("get_all_records_where", "get_all_records_where(expr)",
     "Those objects for which an expression holds, such as field \"power_state\" = \"Running\", with and, or, not, "
     "true, false and parentheses. INVALID_VALUE when it cannot be understood."),
    ("get_field", "get_FIELD(self)", "The value of one field. HANDLE_INVALID when the object has gone."),
    ("set_field", "set_FIELD(self, value)", "Gives a field a new value."),
    ("add_to_field", "add_to_FIELD(self, key, value)", "Puts an entry into a map. MAP_DUPLICATE_KEY if it is there."),
    ("remove_from_field", "remove_from_FIELD(self, key)", "Takes an entry out of a map; done already is no error."),
    ("add_field", "add_FIELD(self, value)", "Puts an entry into a set, where it then is once."),
    ("remove_field", "remove_FIELD(self, value)", "Takes an entry out of a set; done already is no error."),
    ("create", "create(args)", "Makes an object from a record; fields with a default may be left out."),
    ("destroy", "destroy(self)", "Removes an object."),
)  # fmt: skip
"""By kind: the anchor, the form, and what it does."""


def conventions_page(graph: Graph) -> Node:
    """The whole page."""
    types = (row(None, code(name), meaning) for name, meaning in TYPES)
    qualifiers = (row(None, code(kind.value), meaning) for kind, meaning in QUALIFIERS.items())
    implicit = (row(f"implicit-{kind}", code(form), meaning) for kind, form, meaning in IMPLICIT)
    return page(
        graph,
        links.CONVENTIONS,
        "Conventions",
        section("Calls", "calls", *(node("p", text) for text in CALLS)),
        section("Types", "types", table(("Type", "Values"), types, "Types")),
        section("Who sets a field", "qualifiers", table(("Qualifier", "Meaning"), qualifiers, "Qualifiers")),
        section(
            "Implicit messages",
            "implicit",
            node("p", "Nobody writes these: they follow from a class and its fields, and do the same everywhere."),
            table(("Message", "What it does"), implicit, "Kinds of implicit messages"),
        ),
    )
