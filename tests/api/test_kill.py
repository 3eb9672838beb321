"""The daemon is killed again and again while clients write; nothing that was acknowledged may be lost.

The daemon is forked from a process that has imported it already, so that hundreds of starts take no longer than they
must; what runs is the daemon itself, with its files, from start to kill.
"""

from __future__ import annotations

import http.client
import multiprocessing
import os
import random
import shutil
import signal
import threading
import time
import xmlrpc.client
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import XenAPI
from XenAPI.XenAPI import UDSTransport

from domzero.service import serve
from domzero.settings import Endpoint, Settings
from tests.api.harness import password_file

KILLS = 200
WRITERS = 4
START_LIMIT = 60.0
ForkServer = multiprocessing.get_context("forkserver")


def run_daemon(directory: str, socket: str) -> None:
    os.dup2(os.open(f"{directory}/out", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    os.dup2(1, 2)
    base = Path(directory)
    settings = {
        "hypervisor": "sim",
        "https": Endpoint("127.0.0.1", 0),
        "state_dir": base / "state",
        "root_password_file": base / "password",
        "socket": Path(socket),
        "log_level": "warning",
    }
    raise SystemExit(serve(Settings(settings)))


@dataclass
class Daemon:
    """A daemon that can be killed and started again on the same files."""

    directory: Path
    socket: Path
    process: Any = None

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        self.process = ForkServer.Process(target=run_daemon, args=(str(self.directory), str(self.socket)), daemon=True)
        self.process.start()

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join(30)
        self.process.close()

    @contextmanager
    def connected(self) -> Iterator[Any]:
        """The calls of a session over the Unix socket, as soon as the daemon serves."""
        session = self._connect()
        try:
            yield session.xenapi
        finally:
            session("close")()

    def _connect(self) -> Any:
        deadline = time.monotonic() + START_LIMIT
        while not self.socket.exists():
            assert self.process.is_alive(), (self.directory / "out").read_text()[-3000:]
            assert time.monotonic() < deadline, "the daemon does not start"
            time.sleep(0.005)
        # The binding's transport for Unix sockets spells slashes as underscores.
        address = "http://" + str(self.socket).replace("/", "_") + "/"
        while True:
            session = XenAPI.Session(address, transport=UDSTransport())
            try:
                session.xenapi.login_with_password("root", "", "1.0", "tests")
            except XenAPI.Failure as failure:
                session("close")()
                if failure.details != ["HOST_STILL_BOOTING"]:
                    raise
                time.sleep(0.005)
            else:
                return session


@dataclass
class Writer:
    """One client: changes its own network and makes and removes others, remembering what was acknowledged."""

    number: int
    network: str = ""
    counter: int = 0
    acknowledged: int = 0
    made: dict[str, str] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    doubtful: set[str] = field(default_factory=set)
    """Names and references of which the answer never came."""

    def run(self, daemon: Daemon, stop: threading.Event) -> None:
        try:
            with daemon.connected() as api:
                while not stop.is_set():
                    self.write(api)
        except (OSError, http.client.HTTPException, xmlrpc.client.Error):
            # The daemon was killed under this client, which is what the test is about.
            return

    def write(self, api: Any) -> None:
        self.counter += 1
        api.network.set_name_description(self.network, str(self.counter))
        self.acknowledged = self.counter
        name = f"writer {self.number} made {self.counter}"
        self.doubtful.add(name)
        self.made[name] = api.network.create({"name_label": name, "name_description": "", "other_config": {}})
        self.doubtful.discard(name)
        if len(self.made) > 3:
            old = next(iter(self.made))
            self.doubtful.add(old)
            ref = self.made.pop(old)
            api.network.destroy(ref)
            self.doubtful.discard(old)
            self.removed.add(old)

    def check(self, records: dict[str, Any]) -> None:
        value = int(records[self.network]["name_description"])
        assert self.acknowledged <= value <= self.counter
        for name, ref in self.made.items():
            assert records[ref]["name_label"] == name
        names = {record["name_label"] for record in records.values()}
        assert not names & self.removed
        self.counter = value
        self.settle(records)

    def settle(self, records: dict[str, Any]) -> None:
        """Take what is there now as the state to go on from."""
        for ref, record in records.items():
            if record["name_label"] in self.doubtful:
                self.made[record["name_label"]] = ref
        self.doubtful.clear()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_acknowledged_change_is_lost(tmp_path: Path) -> None:
    ForkServer.set_forkserver_preload(["domzero.service"])
    password_file(tmp_path)
    moments = random.Random(20)
    # Short, and without an underscore.
    socket_directory = Path("/tmp") / f"domzero-{uuid4().hex}"
    daemon = Daemon(tmp_path, socket_directory / "xapi")
    try:
        kill_again_and_again(daemon, moments)
    finally:
        daemon.kill()
        shutil.rmtree(socket_directory)


def kill_again_and_again(daemon: Daemon, moments: random.Random) -> None:
    daemon.start()
    writers = [Writer(number) for number in range(WRITERS)]
    with daemon.connected() as api:
        for writer in writers:
            record = {"name_label": f"writer {writer.number}", "name_description": "0", "other_config": {}}
            writer.network = api.network.create(record)
    for _ in range(KILLS):
        stop = threading.Event()
        threads = [threading.Thread(target=writer.run, args=(daemon, stop)) for writer in writers]
        for thread in threads:
            thread.start()
        time.sleep(moments.uniform(0.0, 0.25))
        daemon.kill()
        stop.set()
        for thread in threads:
            thread.join(60)
        daemon.start()
        with daemon.connected() as api:
            records = api.network.get_all_records()
        for writer in writers:
            writer.check(records)
    assert sum(writer.acknowledged for writer in writers) > KILLS
