"""`pyproject.toml` names what is imported, no more and no less; the lock files name all of it and no server."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

from tests.house.sources import ROOT, Module, everything, nodes, package

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
OWN = {"domzero", "tests", "bench", "guest"}
TOOLS = {"mypy", "pytest-timeout", "pytest-xdist", "pytest-asyncio", "ruff", "types-reportlab", "vncdotool"}
"""Programs, plugins and descriptions of types: needed, never imported."""

OPTIONAL = {"libvirt"}
"""Peers that benchmarks compare with where a machine has them."""


def normal(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def named(requirements: Iterable[str]) -> set[str]:
    return {normal(re.split(r"[^\w.-]", requirement, maxsplit=1)[0]) for requirement in requirements}


def imported(modules: Iterable[Module]) -> set[str]:
    """The distributions from which modules import, by normal name; the import's own name where nobody provides it."""
    found = {(module.path.parent, name) for module in modules for name in names(module)}
    tops = {name.partition(".")[0] for directory, name in found if not is_beside(directory, name)}
    providers = packages_distributions()
    foreign = tops - sys.stdlib_module_names - OWN - OPTIONAL
    return {normal(provider) for top in foreign for provider in providers.get(top, [top])}


def is_beside(directory: Path, name: str) -> bool:
    """Whether an import means a script's neighbour, as in a directory that is no package."""
    return not is_package(directory) and (directory / f"{name}.py").exists()


@cache
def is_package(directory: Path) -> bool:
    return (directory / "__init__.py").exists()


def names(module: Module) -> set[str]:
    whole = {alias.name for node in nodes(module, ast.Import) for alias in node.names}
    return whole | {node.module or "" for node in nodes(module, ast.ImportFrom) if not node.level}


def test_the_package_needs_what_it_imports() -> None:
    assert imported(package()) == named(PROJECT["project"]["dependencies"])


def test_tests_and_benchmarks_need_what_they_import() -> None:
    known = named(PROJECT["project"]["dependencies"]) | named(PROJECT["dependency-groups"]["dev"])
    used = imported(everything())
    assert used <= known
    assert named(PROJECT["dependency-groups"]["dev"]) - TOOLS <= used


def test_the_lock_files_are_complete_and_name_no_server() -> None:
    locks = {name: (ROOT / name).read_text() for name in ("requirements.lock", "requirements-dev.lock")}
    pinned = {name: set(re.findall(r"^([\w.-]+)==", text, re.MULTILINE)) for name, text in locks.items()}
    groups = PROJECT["dependency-groups"]
    assert named(PROJECT["project"]["dependencies"]) | named(groups["build"]) <= pinned["requirements.lock"]
    assert named(groups["dev"]) <= pinned["requirements-dev.lock"]
    assert not [name for name, text in locks.items() if "://" in text]
    for text in locks.values():
        blocks = re.split(r"^(?=[\w.-]+==)", text, flags=re.MULTILINE)[1:]
        assert all("--hash=sha256:" in block for block in blocks)
