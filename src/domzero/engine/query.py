"""The expressions of `get_all_records_where`.

    expression = term { "or" term }
    term       = factor { "and" factor }
    factor     = "not" factor | "(" expression ")" | "true" | "false" | value "=" value
    value      = field "name" | "literal"

A field is named as in the database of the original (`name__label`) or as on the wire (`name_label`); `_ref` is the
reference. A literal has no escapes. Values are compared as the original's database writes them: `true`, `42`,
`OpaqueRef:…`, sets as `('a' 'b')`, maps as `(('key' 'value'))`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeAlias

from domzero.engine.errors import ApiError
from domzero.engine.row import Row
from domzero.idl.records import Layout

Test: TypeAlias = Callable[[Row], bool]
Field: TypeAlias = Callable[[Row], str]
Operand: TypeAlias = str | Field
"""A literal, or what gives a field as the database writes it."""

DEEPEST = 100
"""Nesting that is accepted; more is no honest question."""

LONGEST = 50_000
"""Words, literals and marks of an expression."""
MOST_TESTS = 200
"""Tests of one object. Comparing a field with any number of literals, joined by `or`, is one. All tests are made for
every object while nobody else has a turn."""

_TOKEN = re.compile(r'"([^"]*)"|([a-z]+)|([()=])|(\s+)')


def compile_query(layout: Layout, expression: str) -> Test:
    """A test for rows of that class. Raises `ApiError` INVALID_VALUE [expression, reason]."""
    try:
        return _Parser(layout, _tokens(expression)).parse()
    except ValueError as error:
        raise ApiError("INVALID_VALUE", expression, str(error)) from None


def database_text(value: Any) -> str:
    """A stored value as the original's database writes it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"({' '.join(_quoted(item) for item in value)})"
    if isinstance(value, dict):
        return f"({' '.join(f'({_quoted(key)} {_quoted(item)})' for key, item in value.items())})"
    return "" if value is None else str(value)


def _quoted(value: Any) -> str:
    text = database_text(value).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"


def _tokens(expression: str) -> list[tuple[str, str]]:
    """(kind, text) with kind `literal`, `word` or `mark`, and `end` last."""
    tokens: list[tuple[str, str]] = []
    place = 0
    while place < len(expression):
        match = _TOKEN.match(expression, place)
        if match is None:
            raise ValueError(f"cannot read the expression at character {place + 1}")
        place = match.end()
        group = match.lastindex or 0
        if group < 4:
            if len(tokens) == LONGEST:
                raise ValueError("the expression is too long")
            tokens.append((("literal", "word", "mark")[group - 1], match.group(group)))
    tokens.append(("end", ""))
    return tokens


class _Parser:
    def __init__(self, layout: Layout, tokens: list[tuple[str, str]]) -> None:
        self._layout = layout
        self._tokens = tokens
        self._place = 0
        self._depth = 0
        self._tests = 1
        self._fields: dict[int, Field] = {}

    def parse(self) -> Test:
        test = self._expression()
        if self._peek() != ("end", ""):
            raise ValueError(f"expected the end, found {self._peek()[1]!r}")
        return test

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._place]

    def _take(self) -> tuple[str, str]:
        token = self._tokens[self._place]
        self._place += 1
        return token

    def _accept(self, kind: str, text: str) -> bool:
        if self._peek() == (kind, text):
            self._place += 1
            return True
        return False

    def _expression(self) -> Test:
        tests = [self._term()]
        while self._accept("word", "or"):
            tests.append(self._term())
        tests = _united(tests)
        self._tests += len(tests) - 1
        if self._tests > MOST_TESTS:
            raise ValueError("the expression asks too much of each object")
        return tests[0] if len(tests) == 1 else lambda row: any(test(row) for test in tests)

    def _term(self) -> Test:
        tests = [self._factor()]
        while self._accept("word", "and"):
            tests.append(self._factor())
        self._tests += len(tests) - 1
        return tests[0] if len(tests) == 1 else lambda row: all(test(row) for test in tests)

    def _factor(self) -> Test:
        self._depth += 1
        if self._depth > DEEPEST:
            raise ValueError("the expression is nested too deeply")
        try:
            return self._unlimited_factor()
        finally:
            self._depth -= 1

    def _unlimited_factor(self) -> Test:
        if self._accept("word", "not"):
            test = self._factor()
            self._tests += 1
            return lambda row: not test(row)
        if self._accept("mark", "("):
            test = self._expression()
            if not self._accept("mark", ")"):
                raise ValueError("a parenthesis is not closed")
            return test
        if self._accept("word", "true"):
            return lambda _: True
        if self._accept("word", "false"):
            return lambda _: False
        left = self._value()
        if not self._accept("mark", "="):
            raise ValueError(f"expected =, found {self._peek()[1] or 'the end'!r}")
        return _equal(left, self._value())

    def _value(self) -> Operand:
        kind, text = self._take()
        if kind == "literal":
            return text
        if (kind, text) != ("word", "field"):
            raise ValueError(f"expected a field or a literal in quotes, found {text or 'the end'!r}")
        kind, name = self._take()
        if kind != "literal":
            raise ValueError("expected the name of a field in quotes")
        if name == "_ref":
            return _ref
        position = self._layout.position.get(name, self._layout.position.get(name.replace("__", "_")))
        if position is None:
            raise ValueError(f"{self._layout.name} has no field {name!r}")
        return self._fields.setdefault(position, lambda row: database_text(row.record.values_[position]))


class _Among:
    """A test of one field: whether it is any of some texts."""

    __slots__ = ("field", "texts")

    def __init__(self, field: Field, text: str) -> None:
        self.field = field
        self.texts = {text}

    def __call__(self, row: Row) -> bool:
        return self.field(row) in self.texts


def _united(tests: list[Test]) -> list[Test]:
    """Tests of which one has to hold, with those of the same field made one."""
    united: list[Test] = []
    fields: dict[Field, _Among] = {}
    for test in tests:
        if isinstance(test, _Among):
            if (earlier := fields.get(test.field)) is not None:
                earlier.texts |= test.texts
                continue
            fields[test.field] = test
        united.append(test)
    return united


def _ref(row: Row) -> str:
    return row.ref


def _equal(left: Operand, right: Operand) -> Test:
    if isinstance(left, str):
        if isinstance(right, str):
            same = left == right
            return lambda _: same
        left, right = right, left
    value = left
    if isinstance(right, str):
        return _Among(value, right)
    other = right
    return lambda row: value(row) == other(row)
