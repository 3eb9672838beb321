"""Every message has its function or is listed as missing; every gap is named before the first call."""

from __future__ import annotations

from functools import partial
from types import ModuleType
from typing import Any

import pytest

from domzero.datamodel.graph import GRAPH as REAL
from domzero.engine.binding import BindingError, bind, collect, implements, is_coroutine, merge
from domzero.engine.context import Context
from domzero.engine.roles import Roles
from domzero.engine.routes import Routes
from tests.engine.toy_calls import GRAPH, NOT_IMPLEMENTED, Toy


def problems(toy: Toy, missing: tuple[str, ...] = NOT_IMPLEMENTED, without: str = "", **changes: Any) -> list[str]:
    functions = {**toy.engine.implementations(), **toy.implementations()}
    functions.update({name.replace("__", "."): function for name, function in changes.items()})
    functions.pop(without, None)
    with pytest.raises(BindingError) as failure:
        bind(GRAPH, functions, missing)
    return str(failure.value).splitlines()


def test_whole_model_binds(toy: Toy) -> None:
    functions = {**toy.engine.implementations(), **toy.implementations()}
    assert bind(GRAPH, functions, NOT_IMPLEMENTED) is functions


def test_every_gap_is_named(toy: Toy) -> None:
    found = problems(toy, missing=("session.create_from_db_file", "lamp.fly", "lamp.get_all"), without="lamp.sum")
    assert found == [
        "lamp.fly: there is no such message",
        "lamp.get_all: derived, so it cannot be missing",
        "lamp.sum: neither implemented nor listed as not implemented",
        "lamp.melt: neither implemented nor listed as not implemented",
    ]


def test_message_is_not_both_implemented_and_missing(toy: Toy) -> None:
    assert problems(toy, missing=(*NOT_IMPLEMENTED, "lamp.sum")) == [
        "lamp.sum: implemented, and listed as not implemented"
    ]


def test_removed_message_is_neither(toy: Toy) -> None:
    words = "removed, so it is neither implemented nor missing"
    assert problems(toy, missing=(*NOT_IMPLEMENTED, "lamp.gaslight")) == [f"lamp.gaslight: {words}"]
    assert problems(toy, lamp__gaslight=lambda context, self: None) == [f"lamp.gaslight: {words}"]


def test_parameters_are_the_model_s(toy: Toy) -> None:
    def wrong_name(context: Context, lamp: str, slowly: bool) -> None: ...

    def no_context(self_: str, slowly: bool) -> None: ...

    def keyword_only(context: Context, *, self_: str, slowly: bool) -> None: ...

    expected = "lamp.switch_on: the model's parameters are ['self', 'slowly'], the implementation's"
    assert problems(toy, lamp__switch_on=wrong_name) == [f"{expected} ['lamp', 'slowly']"]
    assert problems(toy, lamp__switch_on=no_context) == [
        "lamp.switch_on: its implementation must take the context first",
        f"{expected} ['slowly']",
    ]
    assert problems(toy, lamp__switch_on=keyword_only) == [
        "lamp.switch_on: its implementation must take plain positional parameters"
    ]


def test_parameters_of_methods_and_of_what_cannot_be_looked_into(toy: Toy) -> None:
    class Lamps:
        def switch_on(self, stack: str, context: Context, self_: str, slowly: bool) -> None: ...

        def many(self, context: Context, *args: str) -> None: ...

    functions = {**toy.engine.implementations(), **toy.implementations()}
    bind(GRAPH, {**functions, "lamp.switch_on": partial(Lamps().switch_on, "stack")}, NOT_IMPLEMENTED)
    assert problems(toy, lamp__switch_on=Lamps().many) == [
        "lamp.switch_on: the model's parameters are ['self', 'slowly'], the implementation's []",
        "lamp.switch_on: its implementation must take plain positional parameters",
    ]
    assert problems(toy, lamp__switch_on=print) == ["lamp.switch_on: its implementation cannot be inspected"]


def test_every_message_of_the_real_model_has_a_route() -> None:
    """Routes are made when they are first asked for, and there they must not fail."""
    explicit = [name for name, method in REAL.methods.items() if method.message.implicit is None]
    routes = Routes(REAL, Roles(REAL), {}, explicit, {})
    for name in REAL.methods:
        route = routes.find(name)
        assert route is not None
        assert route.name == name
        assert routes.find(name.replace(".", "_", 1)) is route
        assert (routes.derived(route) is None) == (name in explicit)
    assert routes.find("VM.fly") is None


def test_unknown_function_is_named(toy: Toy) -> None:
    assert problems(toy, lamp__fly=lambda context: None) == ["lamp.fly: there is no such message"]


def module(**functions: Any) -> ModuleType:
    made = ModuleType("made_up")
    for name, function in functions.items():
        function.__module__ = "made_up"
        setattr(made, name, function)
    return made


def test_collect_finds_marked_functions_and_binds_values() -> None:
    @implements("lamp.sum")
    @implements("lamp.total")
    def total(stack: str, context: Context, numbers: tuple[int, ...]) -> str:
        return f"{stack} {sum(numbers)}"

    found = collect(module(total=total, helper=lambda: None), "stack")
    assert set(found) == {"lamp.sum", "lamp.total"}
    assert found["lamp.sum"](None, (1, 2)) == "stack 3"


def test_collect_leaves_imported_functions_to_their_own_module() -> None:
    @implements("lamp.sum")
    def total(context: Context, numbers: tuple[int, ...]) -> int:
        return sum(numbers)

    made = module(total=total)
    total.__module__ = "another"
    assert collect(made) == {}


def test_one_message_twice_is_an_error() -> None:
    @implements("lamp.sum")
    def one(context: Context, numbers: tuple[int, ...]) -> int:
        return 1

    @implements("lamp.sum")
    def two(context: Context, numbers: tuple[int, ...]) -> int:
        return 2

    with pytest.raises(BindingError, match=r"lamp\.sum is implemented twice in made_up"):
        collect(module(one=one, two=two))
    with pytest.raises(BindingError, match=r"lamp\.sum is implemented twice"):
        merge({"lamp.sum": one}, {"lamp.sum": two})


def test_coroutine_functions_are_seen_through_what_is_bound() -> None:
    async def slow(stack: str, more: str, context: Context) -> None: ...

    assert is_coroutine(partial(partial(slow, "stack"), "more"))
    assert not is_coroutine(partial(test_whole_model_binds))
