"""The project's own files, read and parsed once for all tests of this room."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src/domzero"

Node = TypeVar("Node", bound=ast.AST)


@dataclass(frozen=True, slots=True)
class Module:
    """One Python file."""

    path: Path
    name: str
    """As in an import: `domzero.engine.tasks`, `tests.house.sources`."""
    text: str

    @property
    def tree(self) -> ast.Module:
        """Its syntax, parsed once."""
        return _parsed(self)

    @property
    def room(self) -> str:
        """`engine` for `domzero.engine.tasks`, `daemon` for `domzero.daemon`, empty for `domzero` itself."""
        return self.name.split(".")[1] if "." in self.name else ""

    @property
    def where(self) -> str:
        """The path inside the project."""
        return self.path.relative_to(ROOT).as_posix()

    def at(self, node: ast.stmt | ast.expr | ast.ExceptHandler) -> str:
        """A place, for messages."""
        return f"{self.where}:{node.lineno}"


@cache
def package() -> tuple[Module, ...]:
    """Every module of the package."""
    return tuple(_modules(PACKAGE, ROOT / "src"))


@cache
def everything() -> tuple[Module, ...]:
    """The package, what runs in guests, the tests and the benchmarks."""
    return (*package(), *(module for room in ("guest", "tests", "bench") for module in _modules(ROOT / room, ROOT)))


@cache
def documents() -> tuple[Path, ...]:
    """Every Markdown file of the project."""
    return (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("packaging/*.md")))


def nodes(module: Module, kind: type[Node]) -> Iterator[Node]:
    """Every part of a module's syntax that is exactly of a kind, such as `ast.Call`."""
    for node in _by_kind(module)[kind]:
        assert isinstance(node, kind)
        yield node


def last_name(node: ast.expr) -> str:
    """`run` for `run` and for `process.run`; empty for what has no name."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""


def forget() -> None:
    """Lets go of all that was read."""
    for kept in (package, everything, _parsed, _by_kind):
        kept.cache_clear()


def functions(module: Module) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function and method with its name inside the module (`Class.method`)."""
    yield from _functions(module.tree, "")


def constants(module: Module) -> dict[str, str]:
    """The module's top-level names that are plain strings."""
    found: dict[str, str] = {}
    for node in module.tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(text))):
                found[name] = text
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.Constant(value=str(text))):
                found[name] = text
    return found


@cache
def _parsed(module: Module) -> ast.Module:
    return ast.parse(module.text, str(module.path))


@cache
def _by_kind(module: Module) -> defaultdict[type[ast.AST], list[ast.AST]]:
    """One walk over a module for all tests, for walks are what they spend their time with."""
    found: defaultdict[type[ast.AST], list[ast.AST]] = defaultdict(list)
    for node in ast.walk(module.tree):
        found[type(node)].append(node)
    return found


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            continue  # No expression holds a definition.
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + child.name, child
            yield from _functions(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")
        else:
            yield from _functions(child, prefix)


def _modules(directory: Path, base: Path) -> Iterator[Module]:
    for path in sorted(directory.rglob("*.py")):
        parts = path.relative_to(base).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        yield Module(path, name, path.read_text())
