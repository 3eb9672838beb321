"""The form of the log's lines: what strangers say cannot make a line of its own, nor steer a terminal."""

from __future__ import annotations

import logging
import sys

from hypothesis import given
from hypothesis import strategies as st

from domzero.host.control.own_log import LineFormatter

FORM = LineFormatter("%(levelname)s %(name)s: %(message)s")


def line(text: str, error: ValueError | None = None) -> str:
    information = None
    if error is not None:
        try:
            raise error
        except ValueError:
            information = sys.exc_info()
    return FORM.format(logging.LogRecord("domzero.front", logging.INFO, "", 0, "said: %s", (text,), information))


@given(st.text())
def test_one_line_whatever_is_said(text: str) -> None:
    said = line(text)
    assert len(said.splitlines()) == 1
    assert said.isprintable()


def test_what_can_be_read_stays_as_it_is() -> None:
    assert line("Grüße, 日本 \\ 100 %") == "INFO domzero.front: said: Grüße, 日本 \\ 100 %"
    assert line("a\nINFO b\x1b[31m\t\udc80") == "INFO domzero.front: said: a\\nINFO b\\x1b[31m\\t\\udc80"


def test_no_line_of_a_traceback_passes_for_a_record() -> None:
    first, *others = line("it broke", ValueError("no\nINFO domzero.front: all is well\x1b[2J")).splitlines()
    assert first == "INFO domzero.front: said: it broke"
    assert others[-1] == "  INFO domzero.front: all is well\\x1b[2J"
    assert all(other.startswith("  ") for other in others)
