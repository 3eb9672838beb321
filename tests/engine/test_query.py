"""The expressions of get_all_records_where."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domzero.engine.database import Database
from domzero.engine.errors import ApiError
from domzero.engine.query import compile_query, database_text
from domzero.host.clock import ManualClock
from domzero.idl.records import Layout
from tests.engine.toy import CRATE, GRAPH, create


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    database = await Database.open(GRAPH, None, ManualClock())
    yield database
    await database.close()


@pytest.fixture
def refs(database: Database) -> dict[str, str]:
    depot = create(database, "depot")
    return {
        "depot": depot,
        "a": create(database, "crate", name_label="a", weight=5, size=5, fragile=True, depot=depot, temperature=1.5),
        "b": create(database, "crate", name_label="b", weight=6, state="sealed", tags=("x", "it's")),
        "c": create(database, "crate", name_label='and "c"'.replace('"', ""), other_config={"k": "v"}),
    }


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("true", "abc"),
        ("false", ""),
        ('field "fragile" = "true"', "a"),
        ('field "fragile"="false"', "bc"),
        ('field"weight"="5"', "a"),
        ('field "weight" = "05"', ""),
        ('"b" = field "name_label"', "b"),
        ('field "name__label" = "b"', "b"),
        ('field "weight" = field "size"', "ac"),
        ('"x" = "x"', "abc"),
        ('"x" = "y"', ""),
        ('field "state" = "sealed"', "b"),
        ('field "temperature" = "1.5"', "a"),
        ('field "packed" = "19700101T00:00:00Z"', "abc"),
        ('field "depot" = "OpaqueRef:NULL"', "bc"),
        ("field \"tags\" = \"('x' 'it\\'s')\"", "b"),
        ('field "tags" = "()"', "ac"),
        ("field \"other_config\" = \"(('k' 'v'))\"", "c"),
        ('field "name_label" = "and c"', "c"),
        ('not field "fragile" = "true"', "bc"),
        ('not (field "fragile" = "true" or field "name_label" = "b")', "c"),
        ('field "fragile" = "true" or field "name_label" = "b" and field "weight" = "7"', "a"),
        ('(field "fragile" = "true" or field "name_label" = "b") and not false', "ab"),
        ("not not true", "abc"),
        ("  true\n\tand true ", "abc"),
    ],
)
def test_what_is_selected(database: Database, refs: dict[str, str], expression: str, expected: str) -> None:
    found = database.select("crate", expression)
    assert found == {refs[name]: database.record("crate", refs[name]) for name in expected}


def test_references_are_selected_by_their_text(database: Database, refs: dict[str, str]) -> None:
    assert list(database.select("crate", f'field "depot" = "{refs["depot"]}"')) == [refs["a"]]
    assert list(database.select("crate", f'field "_ref" = "{refs["b"]}"')) == [refs["b"]]


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("", "found 'the end'"),
        ("maybe", "found 'maybe'"),
        ('field "weight"', "expected ="),
        ("field weight", "name of a field"),
        ('field "colour" = "red"', "no field 'colour'"),
        ('field "weight" = 5', "character 18"),
        ('field "weight" = "5', "character 18"),
        ("(true", "not closed"),
        ("true)", "expected the end"),
        ("true false", "expected the end"),
        ("true and", "found 'the end'"),
        ("(" * 200 + "true" + ")" * 200, "too deeply"),
        ("not " * 200 + "true", "too deeply"),
        ("true " * 60_000, "too long"),
        (" or ".join(["true"] * 300), "asks too much"),
        (" and ".join(['field "weight" = "5"'] * 300), "asks too much"),
        (" or ".join(["not not not true"] * 80), "asks too much"),
    ],
)
def test_what_is_no_expression_is_refused_with_a_reason(database: Database, expression: str, reason: str) -> None:
    with pytest.raises(ApiError) as caught:
        database.select("crate", expression)
    code, given, why = caught.value.description
    assert (code, given) == ("INVALID_VALUE", expression)
    assert reason in why


def test_a_long_flat_expression_is_no_problem(database: Database, refs: dict[str, str]) -> None:
    expression = " or ".join(f'(field "weight" = "{number}")' for number in range(5000))
    assert set(database.select("crate", expression)) == {refs["a"], refs["b"], refs["c"]}


def test_alternatives_for_one_field_do_not_mix_with_others(database: Database, refs: dict[str, str]) -> None:
    either = 'field "weight" = "5" or field "name_label" = "b" or "7" = field "weight"'
    assert set(database.select("crate", either)) == {refs["a"], refs["b"]}
    assert set(database.select("crate", f'({either}) and not (field "weight" = "6")')) == {refs["a"]}
    assert set(database.select("crate", f'field "_ref" = "{refs["a"]}" or field "_ref" = "x"')) == {refs["a"]}


@given(
    st.one_of(
        st.text(), st.lists(st.sampled_from(["(", ")", "not", "and", "field", '"a"', "=", "true", " "])).map(" ".join)
    )
)
def test_rubbish_raises_nothing_but_the_documented_error(expression: str) -> None:
    with suppress(ApiError):
        compile_query(Layout(CRATE), expression)


def test_values_as_the_original_writes_them() -> None:
    assert database_text({1: True}) == "(('1' 'true'))"
    assert database_text(("a\\", "b'c")) == r"('a\\' 'b\'c')"
    assert database_text(None) == ""
