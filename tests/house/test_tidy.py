"""Small files, small functions, one place for child processes, and nothing swallowed."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.house.sources import ROOT, Module, everything, functions, last_name, nodes, package
from tests.house.tidy_exceptions import LONG_FILES, LONG_FUNCTIONS

LONGEST_FILE = 400
LONGEST_FUNCTION = 40

BANNED = re.compile(
    r"\b(TODO|FIXME|XXX|HACK)\b|\b(not implemented yet|in a real (system|implementation))\b"
    r"|pythonhosted\.org|pypi\.org|deb\.debian\.org|/work/(main|shared)|/tmp/scratch",
)
"""Promises instead of code, and names of machines that are nobody else's business."""

PROCESS_CALLS = re.compile(
    r"(os\.(system|popen|fork|forkpty|spawn\w+|posix_spawn\w*)|subprocess\.\w+|pty\.(spawn|fork)"
    r"|(\w+\.)*create_subprocess_(exec|shell)|(\w+\.)*subprocess_(exec|shell)|multiprocessing\.\w+)"
)
PROCESS_WORD = re.compile(r"system|popen|fork|spawn|subprocess|multiprocessing")
"""A module without any of these has no such call."""
PROCESS_MODULE = "domzero.host.process"
PROCESS_CONSTANTS = {"asyncio.subprocess.PIPE", "asyncio.subprocess.DEVNULL", "asyncio.subprocess.STDOUT"}

TEXT_SUFFIXES = {".md", ".toml", ".py", ".sh", ".service"}
TEXT_DIRECTORIES = {"script", ".ci", "files"}
"""What is in them is text whatever its name."""


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function after its signature (which the API may dictate) and its docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def long_files() -> dict[str, int]:
    lengths = {module.where: module.text.count("\n") for module in everything() if module.room != "datamodel"}
    return {where: lines for where, lines in lengths.items() if lines > LONGEST_FILE}


def long_functions() -> dict[str, int]:
    lengths = {
        f"{module.where}:{name}": body_lines(function)
        for module in everything()
        if module.room != "datamodel"
        for name, function in functions(module)
    }
    return {where: lines for where, lines in lengths.items() if lines > LONGEST_FUNCTION}


@pytest.mark.parametrize(("measure", "excepted"), [(long_files, LONG_FILES), (long_functions, LONG_FUNCTIONS)])
def test_nothing_grows_past_its_limit(measure: Callable[[], dict[str, int]], excepted: dict[str, int]) -> None:
    found = measure()
    grown = {where: lines for where, lines in found.items() if lines > excepted.get(where, 0)}
    assert not grown, f"too long; split it (a file that wants to grow wants a second name): {grown}"
    shrunk = sorted(where for where in excepted if found.get(where) != excepted[where])
    assert not shrunk, f"shorter than tidy_exceptions.py says: lower or remove the entry: {shrunk}"


def test_every_module_has_a_docstring() -> None:
    bare = [module.where for module in everything() if not ast.get_docstring(module.tree) and module.text.strip()]
    assert not bare, f"without a docstring: {bare}"


def test_public_names_of_the_package_are_documented() -> None:
    bare = [f"{module.where}: {name}" for module in package() for name in undocumented(module)]
    assert not bare, "public, without a docstring:\n" + "\n".join(bare)


def undocumented(module: Module) -> Iterator[str]:
    for node in module.tree.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if not node.name.startswith("_") and not ast.get_docstring(node) and not is_overload(node):
            yield node.name


def is_overload(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(isinstance(decorator, ast.Name) and decorator.id == "overload" for decorator in node.decorator_list)


def test_no_exception_is_swallowed_without_a_word() -> None:
    silent = [
        module.at(handler)
        for module in everything()
        for handler in nodes(module, ast.ExceptHandler)
        if handler.type is None or is_silent(module.text.splitlines(), handler)
    ]
    assert not silent, f"an exception is dropped; name it and say why beside the `pass`: {silent}"


def is_silent(lines: list[str], handler: ast.ExceptHandler) -> bool:
    """Whether a handler does nothing and gives no reason."""
    return all(
        (isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)))
        and "#" not in lines[node.lineno - 1]
        for node in handler.body
    )


def test_broad_exceptions_are_never_suppressed() -> None:
    broad = [
        module.at(node)
        for module in everything()
        for node in nodes(module, ast.Call)
        if last_name(node.func) == "suppress"
        and ast.unparse(node.func) in ("suppress", "contextlib.suppress")
        and {"Exception", "BaseException"} & {ast.unparse(argument) for argument in node.args}
    ]
    assert not broad, f"suppresses everything: {broad}"


def test_child_processes_are_started_in_one_module() -> None:
    elsewhere = [
        f"{module.at(node)}: {name}"
        for module in package()
        if module.name != PROCESS_MODULE and PROCESS_WORD.search(module.text)
        for node in (*nodes(module, ast.Attribute), *nodes(module, ast.Name))
        if PROCESS_CALLS.fullmatch(name := ast.unparse(node))
        and name not in PROCESS_CONSTANTS
        and not name.startswith("self.")
    ]
    assert not elsewhere, f"only {PROCESS_MODULE} starts child processes: {elsewhere}"


def test_no_banned_words() -> None:
    own = {ROOT / "tests/house/test_tidy.py"}
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match.group()}"
        for path in text_files()
        if path not in own
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if (match := BANNED.search(line))
    ]
    assert not found, "\n".join(["words that have no place here:", *found])


def text_files() -> list[Path]:
    skipped = {".venv", ".git", "node_modules", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"}
    found: list[Path] = []
    for directory, inner, names in os.walk(ROOT):
        inner[:] = [name for name in inner if name not in skipped]
        here = Path(directory)
        every = here.name in TEXT_DIRECTORIES
        found.extend(here / name for name in names if every or os.path.splitext(name)[1] in TEXT_SUFFIXES)
    return sorted(found)


def test_the_checks_themselves_see_what_they_look_for() -> None:
    dropped, explained = (
        "try:\n    f()\nexcept OSError:\n    pass\n",
        "try:\n    f()\nexcept OSError:\n    pass  # gone\n",
    )
    for text, silent in ((dropped, True), (explained, False)):
        attempt = ast.parse(text).body[0]
        assert isinstance(attempt, ast.Try)
        assert is_silent(text.splitlines(), attempt.handlers[0]) is silent
    long = ast.parse("def f():\n    '''Doc.'''\n" + "    x = 1\n" * 41).body[0]
    assert isinstance(long, ast.FunctionDef)
    assert body_lines(long) == 41
    assert PROCESS_CALLS.fullmatch("asyncio.create_subprocess_exec")
    assert PROCESS_CALLS.fullmatch("os.posix_spawn")
    assert BANNED.search("# FIXME")
