"""The engine is a generic object server: it knows the classes it is made of, and no other."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from domzero.datamodel.graph import GRAPH
from tests.house.sources import Module, package

ENGINES_OWN = {"session", "task", "event", "user", "role", "subject", "auth"}
ORDINARY_WORDS = {"secret"} | {field for cls in ENGINES_OWN for field in GRAPH.fields[cls]}
"""Class names that the engine may write because they also are fields of its own classes or parameters never logged."""

FOREIGN = GRAPH.classes.keys() - ENGINES_OWN


def strings(module: Module) -> Iterator[ast.Constant]:
    """Every string of a module that is no docstring."""
    documentation = {
        id(node.value)
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node


def names_foreign_class(text: str) -> bool:
    """Whether a string is a class's name, or that of a field or message of one."""
    cls, dot, member = text.partition(".")
    if text in ORDINARY_WORDS:
        return False
    return cls in FOREIGN and (not dot or f"{cls}.{member}" in GRAPH.methods or member in GRAPH.fields[cls])


def test_the_engine_names_no_class_but_its_own() -> None:
    found = [
        f"{module.at(node)}: {node.value!r}"
        for module in package()
        if module.room == "engine"
        for node in strings(module)
        if names_foreign_class(str(node.value))
    ]
    assert not found, f"the engine is handed the model and knows no class of it: {found}"


def test_the_check_itself_tells_them_apart() -> None:
    assert names_foreign_class("VM")
    assert names_foreign_class("VM.start")
    assert names_foreign_class("VM.power_state")
    assert not names_foreign_class("session")
    assert not names_foreign_class("VM is a word in a sentence")
