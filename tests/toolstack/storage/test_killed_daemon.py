"""The daemon is killed while clients work on real disks: no acknowledged one is lost, and none leaks."""

from __future__ import annotations

import http.client
import os
import random
import shutil
import threading
import time
import xmlrpc.client
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from domzero.service import serve
from domzero.settings import Endpoint, Settings
from tests.api import test_kill as killing
from tests.api.harness import password_file
from tests.toolstack.vm.world import DISK

KILLS = 12
CLIENTS = 3
STEPS = 3
"""What each client gets done at least before a kill, however busy the machine is."""
MIB = 1 << 20


def run_daemon(directory: str, socket: str) -> None:
    """A host with real storage, in a process of its own; no machine runs on it."""
    os.dup2(os.open(f"{directory}/out", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    os.dup2(1, 2)
    base = Path(directory)
    settings = {
        "hypervisor": "qemu",
        "accel": "tcg",
        "network": "user",
        "https": Endpoint("127.0.0.1", 0),
        "state_dir": base / "state",
        "root_password_file": base / "password",
        "socket": Path(socket),
        "log_level": "warning",
    }
    raise SystemExit(serve(Settings(settings)))


class Daemon(killing.Daemon):
    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        arguments = (str(self.directory), str(self.socket))
        self.process = killing.ForkServer.Process(target=run_daemon, args=arguments, daemon=True)
        self.process.start()

    def images(self) -> set[str]:
        """What the local storage has in its directory."""
        return {name for name in os.listdir(self.directory / "state" / "sr") if name.split(".")[0].count("-") >= 4}


@dataclass
class Client:
    """Makes, copies, grows and destroys disks, remembering what was acknowledged."""

    seed: int
    sizes: dict[str, int] = field(default_factory=dict)
    """Acknowledged disks, and their sizes at least."""
    gone: set[str] = field(default_factory=set)
    doubtful: set[str] = field(default_factory=set)
    """Disks that may be gone: their removal was not acknowledged."""
    done: int = 0
    """What was acknowledged in this life of the daemon."""

    def run(self, daemon: Daemon, stop: threading.Event, moments: random.Random) -> None:
        try:
            with daemon.connected() as api:
                while not stop.is_set():
                    self.work(api, moments)
                    self.done += 1
        except (OSError, http.client.HTTPException, xmlrpc.client.Error):
            # The daemon was killed under this client, which is what the test is about.
            return

    def work(self, api: Any, moments: random.Random) -> None:
        chosen = moments.choice(("create", "clone", "snapshot", "copy", "resize", "destroy", "destroy"))
        if not self.sizes or (chosen == "create" and len(self.sizes) < 6):
            sr = api.pool.get_default_SR(api.pool.get_all()[0])
            self.sizes[api.VDI.create({**DISK, "SR": sr, "virtual_size": str(64 * MIB)})] = 64 * MIB
            return
        vdi = moments.choice(sorted(self.sizes))
        size = self.sizes[vdi]
        if chosen == "resize":
            api.VDI.resize(vdi, str(size + MIB))
            self.sizes[vdi] = size + MIB
        elif chosen == "copy":
            self.sizes[api.VDI.copy(vdi, api.VDI.get_SR(vdi))] = size
        elif chosen in ("clone", "snapshot"):
            self.sizes[getattr(api.VDI, chosen)(vdi, {})] = size
        elif len(self.sizes) > 2:
            del self.sizes[vdi]
            self.doubtful.add(vdi)
            api.VDI.destroy(vdi)
            self.doubtful.discard(vdi)
            self.gone.add(vdi)

    def check(self, records: dict[str, Any]) -> None:
        for vdi, size in self.sizes.items():
            assert not records[vdi]["missing"], "an acknowledged disk is not there"
            assert int(records[vdi]["virtual_size"]) >= size
        assert not records.keys() & self.gone
        missing = {vdi for vdi, record in records.items() if record["missing"]}
        assert missing <= self.doubtful | {vdi for vdi in records if vdi not in self.sizes}


@pytest.mark.slow
@pytest.mark.qemu
@pytest.mark.timeout(300)
def test_no_acknowledged_disk_is_lost_and_none_leaks(tmp_path: Path) -> None:
    killing.ForkServer.set_forkserver_preload(["domzero.service"])
    password_file(tmp_path)
    directory = Path("/tmp") / f"domzero-{uuid4().hex}"
    daemon = Daemon(tmp_path, directory / "xapi")
    try:
        work_and_kill(daemon, [Client(seed) for seed in range(CLIENTS)])
        with daemon.connected() as api:
            tools = [vdi for vdi in api.VDI.get_all() if api.VDI.get_is_tools_iso(vdi)]
            for vdi in set(api.VDI.get_all()) - set(tools):
                api.VDI.destroy(vdi)
            api.SR.scan(api.pool.get_default_SR(api.pool.get_all()[0]))
            assert api.VDI.get_all() == tools
        assert daemon.images() == set()
    finally:
        daemon.kill()
        shutil.rmtree(directory)


def until_at_work(clients: list[Client], threads: list[threading.Thread]) -> None:
    deadline = time.monotonic() + 60
    while any(client.done < STEPS and thread.is_alive() for client, thread in zip(clients, threads, strict=True)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def work_and_kill(daemon: Daemon, clients: list[Client]) -> None:
    moments = random.Random(3)
    daemon.start()
    with daemon.connected():
        pass
    for number in range(KILLS):
        stop = threading.Event()
        threads = [
            threading.Thread(target=each.run, args=(daemon, stop, random.Random(each.seed * 1000 + number)))
            for each in clients
        ]
        for client, thread in zip(clients, threads, strict=True):
            client.done = 0
            thread.start()
        time.sleep(moments.uniform(0.2, 1.0))
        until_at_work(clients, threads)
        daemon.kill()
        stop.set()
        for thread in threads:
            thread.join(60)
        daemon.start()
        with daemon.connected() as api:
            records = api.VDI.get_all_records()
        for client in clients:
            client.check(records)
    assert sum(len(client.gone) for client in clients) > 0
    assert sum(len(client.sizes) for client in clients) > CLIENTS
