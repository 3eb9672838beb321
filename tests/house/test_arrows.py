"""Imports inside the package follow the arrows of the architecture."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache

import pytest

from tests.house.arrows import MAY_IMPORT, as_markdown, is_allowed
from tests.house.sources import ROOT, Module, nodes, package


@cache
def module_names() -> frozenset[str]:
    return frozenset(module.name for module in package())


def imported(module: Module) -> Iterator[tuple[ast.stmt, str]]:
    """Every module of the package that a module imports, wherever in its text."""
    for statement in nodes(module, ast.ImportFrom):
        base = absolute(module, statement)
        # `from package import name` may name a module or something inside the package.
        yield from (
            (statement, inner if (inner := f"{base}.{alias.name}") in module_names() else base)
            for alias in statement.names
        )
    for plain in nodes(module, ast.Import):
        yield from ((plain, alias.name) for alias in plain.names)


def absolute(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    is_package = module.path.name == "__init__.py"
    parts = module.name.split(".")
    above = parts[: len(parts) - node.level + (1 if is_package else 0)]
    return ".".join([*above, *([node.module] if node.module else [])])


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_a_room_imports_only_what_the_arrows_allow(room: str) -> None:
    broken = {
        f"{module.at(node)} imports {target}"
        for module in package()
        if module.room == room
        for node, target in imported(module)
        if target.partition(".")[0] == "domzero" and not is_allowed(room, target)
    }
    assert not broken, "\n".join(["imports against the arrows (ARCHITECTURE.md):", *sorted(broken)])


def test_every_module_is_in_a_room_of_the_table() -> None:
    assert {module.room for module in package()} - {""} <= MAY_IMPORT.keys()


def test_the_arrows_have_no_circle() -> None:
    rooms = {room: {name for name in names if name in MAY_IMPORT} for room, names in MAY_IMPORT.items()}
    while rooms:
        leaves = {room for room, names in rooms.items() if not names & rooms.keys()}
        assert leaves, f"these rooms may import each other: {sorted(rooms)}"
        rooms = {room: names for room, names in rooms.items() if room not in leaves}


def test_the_architecture_document_shows_this_table() -> None:
    assert as_markdown() in (ROOT / "ARCHITECTURE.md").read_text()


def test_the_check_itself_sees_a_forbidden_import() -> None:
    text = "from domzero.host.hypervisor.qemu import driver\nimport domzero.engine.tasks\n"
    module = Module(ROOT / "src/domzero/toolstack/example.py", "domzero.toolstack.example", text)
    targets = [target for _, target in imported(module)]
    assert [is_allowed("toolstack", target) for target in targets] == [False, True]
    assert is_allowed("toolstack", "domzero.host.hypervisor.spec")
    assert not is_allowed("engine", "domzero.datamodel.graph")
