"""The daemon's xenstore: where it listens, who may connect, and what is left of it when the daemon is killed."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import pyxs

from tests.service.daemons import daemon

pytestmark = pytest.mark.slow


# pyxs's own thread finds the daemon gone.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_what_was_written_outlives_a_daemon_that_is_killed(tmp_path: Path) -> None:
    chosen = tmp_path / "chosen"
    with daemon(tmp_path / "d", "--xenstore-socket", str(chosen)) as host:
        host.start()
        assert chosen.stat().st_mode & 0o777 == 0o600
        with pyxs.Client(unix_socket_path=str(chosen)) as client:
            for number in range(100):
                client.write(b"/kept/%d" % number, b"x")
            client.transaction()
            client.write(b"/never", b"x")
            host.signal(signal.SIGKILL)
            host.wait()
            client.tx_id = 0
        host.start()
        with pyxs.Client(unix_socket_path=str(chosen)) as client:
            assert len(client.list(b"/kept")) == 100
            assert not client.exists(b"/never")
        assert host.stop() == 0
        assert not chosen.exists()


def test_it_listens_in_the_runtime_directory_where_nothing_else_is_said(tmp_path: Path) -> None:
    with daemon(tmp_path / "d") as host:
        host.start()
        with pyxs.Client(unix_socket_path=str(host.state / "run" / "xenstore")) as client:
            assert client.get_domain_path(0) == b"/local/domain/0"
