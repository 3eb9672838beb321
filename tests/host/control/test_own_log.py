"""The form of the log's lines: what strangers say cannot make a line of its own, nor steer a terminal."""

from __future__ import annotations

import logging
import logging.handlers
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domzero.host.control.own_log import LineFormatter, RemoteLog, read_tail
from domzero.host.control.protocol import ControlError

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


def test_the_end_of_the_log_reaches_back_beyond_its_turning_over(tmp_path: Path) -> None:
    path = tmp_path / "domzero.log"
    assert read_tail(path, 100) == ""
    path.write_text("third\nfourth\n")
    assert read_tail(path, 100) == "third\nfourth\n"
    (tmp_path / "domzero.log.1").write_text("first\nsecond\n")
    assert read_tail(path, 100) == "first\nsecond\nthird\nfourth\n"
    assert read_tail(path, 22) == "second\nthird\nfourth\n"
    assert read_tail(path, 9) == "fourth\n"


def test_no_line_of_a_traceback_passes_for_a_record() -> None:
    first, *others = line("it broke", ValueError("no\nINFO domzero.front: all is well\x1b[2J")).splitlines()
    assert first == "INFO domzero.front: said: it broke"
    assert others[-1] == "  INFO domzero.front: all is well\\x1b[2J"
    assert all(other.startswith("  ") for other in others)


@pytest.fixture
def remote() -> Iterator[RemoteLog]:
    log = RemoteLog()
    yield log
    log.send_to("")


def senders() -> list[logging.handlers.SysLogHandler]:
    handlers = logging.getLogger("domzero").handlers
    return [handler for handler in handlers if isinstance(handler, logging.handlers.SysLogHandler)]


@pytest.mark.parametrize("wrong", ["127.0.0.1:0", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1:x", "..", ":514"])
def test_a_server_that_cannot_be_found_changes_nothing(remote: RemoteLog, wrong: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(20)
        remote.send_to(f"127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(ControlError):
            remote.send_to(wrong)
        logging.getLogger("domzero.tests").warning("still here")
        assert b"still here" in server.recv(4096)
    remote.send_to("")
    assert senders() == []


def test_a_name_is_looked_up_once_and_not_for_every_line(remote: RemoteLog) -> None:
    remote.send_to("localhost")
    (sender,) = senders()
    assert sender.address in (("127.0.0.1", 514), ("::1", 514))


def test_a_line_that_cannot_be_sent_is_let_go(remote: RemoteLog, capsys: pytest.CaptureFixture[str]) -> None:
    remote.send_to("127.0.0.1")
    (sender,) = senders()
    # A broadcast is what a socket may not send unasked, on every machine.
    sender.address = ("255.255.255.255", 514)
    logging.getLogger("domzero.tests").warning("lost")
    assert capsys.readouterr().err == ""
