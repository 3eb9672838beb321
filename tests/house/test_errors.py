"""Every error that the code raises by name is a row of the datamodel, with as many parameters."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache

from domzero.datamodel.graph import GRAPH
from tests.house.sources import Module, constants, last_name, nodes, package


@cache
def all_constants() -> dict[tuple[str, str], str]:
    return {(module.name, name): text for module in package() for name, text in constants(module).items()}


ALSO_WITH = {
    "SESSION_AUTHENTICATION_FAILED": {2},
    "OTHER_OPERATION_IN_PROGRESS": {2},
}
"""Counts that servers send besides what the model lists: a login is refused with name and reason, and an operation in
progress with class and object alone where it is not known which one it is."""


def raised(module: Module) -> Iterator[tuple[ast.Call, str, int]]:
    """Every `ApiError(CODE, …)` whose code and number of parameters can be read from the text."""
    known = constants(module) | dict(imported_constants(module))
    for node in nodes(module, ast.Call):
        if last_name(node.func) != "ApiError" or not node.args:
            continue
        match node.args[0]:
            case ast.Constant(value=str(code)):
                pass
            case ast.Name(id=name) if name in known:
                code = known[name]
            case _:
                continue
        if not any(isinstance(argument, ast.Starred) for argument in node.args):
            yield node, code, len(node.args) - 1


def imported_constants(module: Module) -> Iterator[tuple[str, str]]:
    for node in nodes(module, ast.ImportFrom):
        for alias in node.names:
            text = all_constants().get((node.module or "", alias.name))
            if text is not None:
                yield alias.asname or alias.name, text


def problem(code: str, params: int) -> str | None:
    """What is wrong with an error of that code and number of parameters, or None."""
    error = GRAPH.errors.get(code)
    if error is None:
        return f"{code} is no error of the datamodel"
    if params not in ALSO_WITH.get(code, set()) | {len(error.params)}:
        return f"{code} takes {len(error.params)} parameters {error.params}, not {params}"
    return None


def test_raised_errors_are_rows_with_as_many_parameters() -> None:
    found = [(module.at(node), problem(code, params)) for module in package() for node, code, params in raised(module)]
    wrong = [f"{where}: {text}" for where, text in found if text]
    assert not wrong, "\n".join(["errors that the datamodel does not know so:", *wrong])
    assert len(found) > 20, "the check no longer finds the errors that are raised"


def test_the_check_itself_sees_wrong_codes_and_counts() -> None:
    assert problem("SESSION_INVALID", 1) is None
    assert problem("SESSION_INVALID", 0) is not None
    assert problem("NO_SUCH_CODE", 0) is not None
