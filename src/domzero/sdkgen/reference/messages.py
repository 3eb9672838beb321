"""How a class's messages are shown: explicit ones in full, implicit ones as rows of a table."""

from __future__ import annotations

from collections.abc import Sequence

from domzero.idl.graph import Method
from domzero.idl.model import MISSING, Param
from domzero.sdkgen.reference import links
from domzero.sdkgen.reference.parts import ages, code, row, shown_value, table
from domzero.sdkgen.reference.tree import Child, Node, append, joined, node


def explicit_message(method: Method, answered: bool) -> Node:
    """The section of one explicit message. `answered` tells whether this server carries it out."""
    message = method.message
    unanswered = node("p", "This version does not carry the call out; it answers NOT_IMPLEMENTED.", class_="warning")
    return node(
        "section",
        node("h3", code(method.name)),
        node("p", message.doc),
        None if answered else unanswered,
        node("p", signature(method), class_="signature"),
        _parameters(method),
        _facts(method),
        id=f"message-{message.name}",
        class_="message",
    )


def signature(method: Method) -> Node:
    """Result, name and parameters in one line, the session among them."""
    message = method.message
    session: list[Child] = ["session ref session_id"] if message.session else []
    shown = [*session, *(node("span", links.shown_type(param.type), f" {param.name}") for param in message.params)]
    return append(node("code", links.shown_type(message.result), f" {method.name}("), *joined(", ", shown), ")")


def implicit_messages(methods: Sequence[Method]) -> Node:
    """The table of a class's implicit messages."""
    rows = (_implicit_row(method) for method in methods)
    return table(("Message", "Signature", "Least role", "Release"), rows, "Implicit messages")


def _implicit_row(method: Method) -> Node:
    message = method.message
    name = links.link(links.implicit_at(message.implicit or ""), message.name)
    return row(
        f"message-{message.name}", node("code", name), signature(method), links.role_link(message.least_role),
        ages(message),
    )  # fmt: skip


def _parameters(method: Method) -> Node | None:
    if not method.message.params:
        return None
    rows = (
        row(None, code(param.name), links.shown_type(param.type), _may_be_left_out(param), param.doc)
        for param in method.message.params
    )
    return table(("Parameter", "Type", "Default", "Description"), rows, f"Parameters of {method.name}")


def _may_be_left_out(param: Param) -> Child:
    return "required" if param.default is MISSING else code(shown_value(param.default))


def _facts(method: Method) -> Node:
    message = method.message
    errors = joined(", ", (node("code", links.link(links.error_at(error), error)) for error in message.errors))
    facts = node("dl", class_="facts")
    _fact(facts, "Result", links.shown_type(message.result), f" – {message.result_doc}" if message.result_doc else None)
    if errors:
        _fact(facts, "Errors", *errors)
    _fact(facts, "Least role", links.role_link(message.least_role))
    _fact(facts, "Release", *ages(message))
    if message.asynchronous:
        _fact(facts, "As a task", code(f"Async.{method.name}"))
    return facts


def _fact(facts: Node, name: str, *content: Child) -> None:
    append(facts, node("div", node("dt", name), node("dd", *content)))
